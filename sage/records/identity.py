"""What makes a run this run, and which runs are of one recipe.

The run digest (identity version 1) is the sha256 of the canonical JSON of every setting that can change a
result (all but `sage.config.schema.NOT_A_RESULT`), the config's SCHEMA_VERSION and the digest of the game
manifest. A recipe is the same without the seed and the version: runs of one recipe differ in nothing but
their luck. What provenance.json records beside it is in neither: the code's commit, package versions,
hardware, and the content of model folders.

Options that are called otherwise now are hashed under the names that they had (`sage.config.moved`), so that
a run keeps its id. Records of schema version 1 are read as this version would have written them, so that the
two are of one recipe exactly where every key agrees. A setting that version 1 did not have is a key that does
not agree.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage.config.moved import as_hashed, modern
from sage.config.plain import canonical_json, flatten
from sage.config.schema import NOT_A_RESULT, SCHEMA_VERSION, RunConfig, without, without_idle
from sage.redaction import redact_data

IDENTITY_VERSION = 1
STREAMS_VERSION = 1
"""Of the keys (seed, step, task, rollout, turn) of all random draws and of what is drawn under each. Raised
where either changes: runs of two versions that share a seed no longer share their luck."""
MANIFEST = "(game manifest)"
"""Key of the manifest's digest among a record's settings."""

_MOVED_IN_2 = {
    "rollout": ("vllm", "draft_tokens", "slots", "workers", "step_timeout_s", "judge_ahead"),
    "trainer": ("micro_batch", "threads", "checkpoint_every"),
}
"""What version 1 kept among the results, or beside them, and version 2 has in `speed`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a run this run."""

    fields: dict[str, Any]
    manifest_digest: str
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, config: RunConfig, manifest_digest: str) -> Identity:
        return cls(redact_data(config.digest_fields()), manifest_digest)

    @property
    def digest(self) -> str:
        """sha256 in hex; its first 12 characters are the run id."""
        data = {
            "identity": IDENTITY_VERSION,
            "schema": self.schema_version,
            "manifest": self.manifest_digest,
            "config": as_hashed(self.fields),
        }
        return hashlib.sha256(canonical_json(data).encode()).hexdigest()

    @property
    def run(self) -> str:
        return self.digest[:12]

    @property
    def recipe(self) -> str:
        """Equal for runs that differ in their seed alone (`recipe_of`)."""
        return recipe_of(recorded_settings(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Content of run.json."""
        return {
            "digest": self.digest,
            "identity_version": IDENTITY_VERSION,
            "fields": self.fields,
            "manifest_digest": self.manifest_digest,
            "schema_version": self.schema_version,
            "not_a_result": list(NOT_A_RESULT),
            "pair": self.pair,
        }

    @property
    def pair(self) -> dict[str, Any]:
        """What another run must share with this one to be its partner (`pair_of`)."""
        flat = flatten(self.fields)
        streams = f"{STREAMS_VERSION}, {flat.get('rollout.decoder', 'local')}"
        return pair_of(flat | {MANIFEST: self.manifest_digest}) | {"streams": streams}


def recorded_settings(run_json: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every setting of a recorded run that can change its result, by dotted name, and the manifest's digest.

    `run_json` is the content of its run.json; where that is empty, `config` is the content of config.yaml.
    What is no result is what the record itself says.
    """
    fields, _ = modern(copy.deepcopy(dict(run_json.get("fields") or config or {})))
    version = run_json.get("schema_version", 2 if "speed" in fields else 1)
    if version < 2 and fields:
        fields = _as_version_2(fields)
    names: Sequence[str] = run_json.get("not_a_result", NOT_A_RESULT)
    flat = flatten(without_idle(without(fields, names)))
    return flat | {MANIFEST: run_json["manifest_digest"]} if "manifest_digest" in run_json else flat


def recipe_of(settings: Mapping[str, Any]) -> str:
    """First 12 hex digits of the sha256 of `recorded_settings` without the seed; empty for no settings."""
    if not settings:
        return ""
    rest = as_hashed({key: value for key, value in settings.items() if key != "seed"})
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def pair_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must share to be a pair, as far as `recorded_settings` say it: `seed`, `games` (the
    manifest's digest) and `student` (a digest of its settings). run.json also has `streams`: the version of
    the random draws, and who decodes."""
    of_student = [key for key in settings if key.startswith("student.") and key != "student.device"]
    student = {key: settings[key] for key in of_student}
    pair = {name: settings[key] for name, key in (("seed", "seed"), ("games", MANIFEST)) if key in settings}
    if student:
        pair["student"] = hashlib.sha256(canonical_json(student).encode()).hexdigest()[:12]
    return pair


def _as_version_2(fields: dict[str, Any]) -> dict[str, Any]:
    """A version 1 record's settings under today's names: speed apart, who sampled where it belongs."""
    rollout, trainer = fields.get("rollout"), fields.get("trainer")
    if "method" in fields:
        fields.setdefault("name", fields["method"])  # what its tables call it
    if isinstance(rollout, dict):
        rollout["decoder"] = "vllm" if rollout.pop("engine", "auto") == "vllm" else "local"
    if isinstance(trainer, dict):
        trainer.setdefault("log_skipped", True)  # version 1 left it out where it was true
    for role in ("student", "teacher"):
        if isinstance(fields.get(role), dict):
            fields[role].setdefault("thinking", False)  # version 1 knew no other
    for group, names in _MOVED_IN_2.items():
        for name in names if isinstance(fields.get(group), dict) else ():
            fields[group].pop(name, None)
    return fields

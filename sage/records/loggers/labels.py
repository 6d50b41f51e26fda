"""What a run is called by and filtered by in a logger's pages: its params and tags."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sage.config.plain import flatten
from sage.records.files import read_object
from sage.records.rundir import RunDir
from sage.records.tables import read

ARM = "arm"
"""Begins the params that say which arm of a study a run is. MLflow's comparison offers the first three params
that differ, by name: these come before all others."""
_PARTS = ("intervention", "confidence", "normalization", "divergence", "curriculum")
_LONG = 240


def params(run: RunDir) -> dict[str, str]:
    """The arm's, and the digest fields, flattened: equal for every attempt of a run, so that no logger sees
    one change."""
    fields = run.identity().fields
    return _arm(fields) | {key: _short(value) for key, value in flatten(fields).items()}


def _arm(fields: dict[str, Any]) -> dict[str, str]:
    """What methods differ in: the name of each part, and of the whole."""
    parts = {part: fields[part].get("name") for part in _PARTS if isinstance(fields.get(part), dict)}
    parts["method"] = fields.get("name", fields.get("method"))
    return {f"{ARM}.{part}": _short(name) for part, name in parts.items() if name}


def tags(run: RunDir) -> dict[str, str]:
    """What runs are filtered and grouped by."""
    identity, status = run.identity(), run.status()
    fields, provenance = identity.fields, read_object(run.path / "provenance.json") or {}
    code = provenance.get("code", {})
    env = fields.get("env", {})
    sources = set(read(run.path, "episodes", ["source"]).column("source").to_pylist())
    called = fields.get("name", fields.get("method"))
    name = f"{called}-{env.get('name')}-s{fields.get('seed')}-{identity.run[:6]}"
    values = {
        "mlflow.runName": name,
        "sage.key": key(run),
        "sage.run": identity.run,
        "sage.digest": identity.digest,
        "sage.attempt": run.attempt,
        "sage.state": status.state if status else "absent",
        "sage.reason": status.reason if status else "",
        "sage.directory": str(run.path.resolve()),
        "sage.commit": code.get("commit"),
        "sage.dirty": code.get("dirty"),
        "sage.source_sha256": code.get("source_sha256"),
        "sage.version": code.get("version"),
        "sage.manifest": identity.manifest_digest,
        "sage.host": status.host if status else "",
        "method": called,
        "preset": fields.get("method"),
        "sage.recipe": identity.recipe,
        "env": env.get("name"),
        "source": ",".join(sorted(sources)) or None,
        "seed": fields.get("seed"),
    }
    values |= {f"sage.model.{role}": digest for role, digest in provenance.get("models", {}).items()}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def key(run: RunDir) -> str:
    """Names one attempt of one run in any store: the tag that makes the export idempotent."""
    return f"{run.identity().digest}/attempt_{run.attempt}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    """A param's text; long texts (prompts) by their digest, for config.yaml beside it has them in full."""
    text = _plain(value)
    if len(text) <= _LONG and "\n" not in text:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{' '.join(text[:60].split())}... ({len(text)} characters, sha256 {digest})"

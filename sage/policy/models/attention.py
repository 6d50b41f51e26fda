"""Whether the attention that a setting names can be had here, before any weights are read."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from sage.errors import ModelError

if TYPE_CHECKING:
    from sage.config.schema import ModelSettings

PACKAGES = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}
"""Attentions that are no part of torch: the module, and what installs it. Without it transformers would fetch
code from a hub, which is never run here."""


def check_attention(settings: ModelSettings, device: str) -> None:
    """Raises ModelError where `attn_implementation` needs what is not here; `device` is a type of torch's."""
    name = settings.attn_implementation
    if name is None or name not in PACKAGES:
        return
    module, package = PACKAGES[name]
    reason = ""
    if device != "cuda":
        reason = f"runs on a GPU alone, and {settings.path!r} is on {device}"
    elif settings.dtype == "float32":
        reason = "takes bfloat16 and float16 alone; set dtype=bfloat16"
    elif find_spec(module) is None:
        reason = f"needs the package {package}, which is not installed"
    if reason:
        raise ModelError(f"attn_implementation={name} {reason}; or take sdpa, which every torch has.")

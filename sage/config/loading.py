"""Settings of how a model's weights are loaded, and which of them are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sage.config.registry import Settings

OWN_ARGUMENTS = {
    "revision": "it has a setting of its own, `revision`",
    "dtype": "it has a setting of its own, `dtype`",
    "torch_dtype": "it has a setting of its own, `dtype`",
    "attn_implementation": "it has a setting of its own, `attn_implementation`",
    "gguf_file": "it has a setting of its own, `gguf_file`",
    "trust_remote_code": "a model's own code is never run here",
    "output_loading_info": "what is missing in the files is always looked at",
    "use_safetensors": "pickles can run code when they are opened",
    "state_dict": "weights come from the model's files",
    "ignore_mismatched_sizes": "a model whose shapes are not its config's would be noise",
}
"""Arguments of `from_pretrained` that `model_kwargs` may not hold, and why."""


class LoraSettings(Settings):
    """Low-rank adapters that are trained in place of the weights (docs/guide/teachers.md)."""

    rank: int = Field(ge=1, le=65_536)
    """Of the change that a matrix can learn."""
    alpha: float = Field(gt=0, le=1e6)
    """The change is alpha / rank times what the adapter's two matrices give."""
    targets: list[str] | Literal["all-linear"]
    """Names of the layers that get one (`q_proj`, `v_proj`, ...), or all linear ones but the output layer."""

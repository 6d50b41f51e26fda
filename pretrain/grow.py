"""Continue from a smaller model: more layers and more key/value heads, computing the same function at first.

A key/value head is repeated for each query head that it served. An added layer is a copy of the one before it
whose two output projections are zero, so that it adds nothing until it has learnt something (the idea of
Net2Net, Chen et al. 2016, arXiv 1511.05641).
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.*)")


def grow(small: Any, large: Any) -> None:
    """Write `small`'s function into `large`, in place. Raises ValueError where their shapes forbid it."""
    here, there = small.config, large.config
    same = ("hidden_size", "intermediate_size", "num_attention_heads", "head_dim", "vocab_size")
    differing = [name for name in same if getattr(here, name) != getattr(there, name)]
    if differing:
        raise ValueError(
            f"A model grows in layers and key/value heads only, and {', '.join(differing)} differ."
        )
    if (
        there.num_key_value_heads % here.num_key_value_heads
        or there.num_hidden_layers < here.num_hidden_layers
    ):
        raise ValueError(
            f"From {here.num_hidden_layers} layers and {here.num_key_value_heads} key/value heads a model "
            f"cannot grow to {there.num_hidden_layers} and {there.num_key_value_heads}."
        )
    repeats = there.num_key_value_heads // here.num_key_value_heads
    sources = layer_sources(here.num_hidden_layers, there.num_hidden_layers)
    state: dict[str, Tensor] = small.state_dict()
    grown: dict[str, Tensor] = {}
    for name in large.state_dict():
        if not (found := _LAYER.fullmatch(name)):
            grown[name] = state[name]
            continue
        layer, rest = int(found[1]), found[2]
        tensor = state[f"model.layers.{sources[layer]}.{rest}"]
        if rest in ("self_attn.k_proj.weight", "self_attn.v_proj.weight"):
            by_head = tensor.view(here.num_key_value_heads, here.head_dim, -1)
            tensor = by_head.repeat_interleave(repeats, dim=0).reshape(-1, tensor.shape[1])
        added = layer > 0 and sources[layer] == sources[layer - 1]
        if added and rest in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
            tensor = torch.zeros_like(tensor)
        grown[name] = tensor
    large.load_state_dict(grown)


def layer_sources(small: int, large: int) -> list[int]:
    """Which old layer each new one begins as; the added ones spread evenly: 4 to 6 gives 0 1 1 2 3 3."""
    return [min(small - 1, -(-(i + 1) * small // large) - 1) for i in range(large)]

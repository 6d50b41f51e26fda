"""Several rows in one sequence without padding: each row's positions begin at 0, and each attends to itself.

The model's own modules run on the whole sequence; only attention goes row by row, through torch's own SDPA,
so that no mask over the whole sequence is made and no product between rows is computed. Which models that is
right for is measured (`sage.policy.models.hidden_states.training_error`), never assumed.

Shape suffixes: H query heads, J key/value heads, N tokens of all rows, L of one row, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sage.policy.models.layers import FULL, SLIDING, kinds, steady_length
from sage.policy.models.load import LanguageModel

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Classes of transformers that hand further arguments of a forward on to their attention, and take a token's
place from `position_ids` alone."""
NAME = "sage_packed"
"""Of our attention among transformers'."""


def why_not(lm: LanguageModel) -> str:
    """What about the model forbids packed rows, as the end of a sentence; empty where nothing is known to."""
    name, config = type(lm.model).__name__, lm.model.config.get_text_config()
    if name not in ARCHITECTURES or not type(lm.model).__module__.startswith("transformers."):
        return f"{name} is none of {', '.join(ARCHITECTURES)}"
    if set(kinds(config)) - {FULL, SLIDING}:
        return "some of its layers keep a running state or look at chunks"
    if steady_length(lm) is not None:
        return "its rotary frequencies depend on the length of a sequence"
    if config._attn_implementation != "sdpa":
        return f"its attention is {config._attn_implementation} and would have to be sdpa"
    return ""


def packed_arguments(ids: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    """Arguments of the model's forward for the rows' ids, one behind the other."""
    lengths = [len(row) for row in ids]
    flat = [token for row in ids for token in row]
    places = [place for length in lengths for place in range(length)]
    return {
        "input_ids": torch.tensor([flat], dtype=torch.long, device=device),
        "position_ids": torch.tensor([places], dtype=torch.long, device=device),
        "packed_lengths": tuple(lengths),
    }


@contextmanager
def packed_attention(lm: LanguageModel) -> Iterator[None]:
    """Inside, the model's attention is ours, and no mask is made for it."""
    _register()
    config: Any = lm.model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)


def _attention(
    _module: Any,
    query_1HND: Tensor,
    key_1JND: Tensor,
    value_1JND: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_lengths: tuple[int, ...],
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers' own attention functions: [1, N, H, D], and no weights. Raises ValueError for what it
    would ignore."""
    ignored = [name for name, value in others.items() if name in _ALTERS and value is not None and value != 0]
    if attention_mask is not None or ignored:
        raise ValueError(f"packed attention knows no {', '.join(ignored) or 'mask'}")
    rows = [t.split(packed_lengths, dim=2) for t in (query_1HND, key_1JND, value_1JND)]
    mixed = []
    for query, key, value in zip(*rows, strict=True):
        mask = _window_mask(query.shape[2], others.get("sliding_window"), query.device)
        mixed.append(
            scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(mixed, dim=2).transpose(1, 2).contiguous(), None


_ALTERS = ("dropout", "softcap", "s_aux", "position_bias")
"""Arguments by which models alter what attention computes."""


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Whom a row's tokens see, [L, L]; None where it is all before them."""
    if window is None or length <= window:
        return None
    place = torch.arange(length, device=device)
    back = place[:, None] - place
    return (back >= 0) & (back < window)

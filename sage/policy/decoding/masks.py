"""Attention masks for rows that stand at different positions, one for each kind of layer that a model has.

What a kind may see is transformers' own mask function, asked about our rows' positions: its mask makers know
one offset for all rows only. The form is the one that the model's attention takes: boolean for SDPA, added
to the scores for the eager one (which attention sinks need).

Shape suffixes: B rows, Q queries, K cached positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sage.errors import ModelError
from sage.policy.models.layers import CHUNKED, FULL, SLIDING, kinds, window


class Masks:
    """The masks of one text config. Raises ModelError for layers or an attention that it has no mask for."""

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        self._by_kind = hasattr(config, "layer_types")
        """Such models take a dict with a mask for every kind, the others one mask."""
        self._may_see = {kind: _rule(config, kind) for kind in kinds(config)}
        attention = config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise ModelError(f"its attention {attention!r} takes no mask of this form")
        self._added = dtype if attention == "eager" else None

    def at(self, position_BQ: Tensor, kv_length: int) -> Tensor | dict[str, Tensor]:
        """Masks [B, 1, Q, K] for queries at these positions over cached positions 0..kv_length-1."""
        key_BK = torch.arange(kv_length, device=position_BQ.device)[None]
        return self.over(position_BQ, key_BK, None)

    def over(
        self, position_BQ: Tensor, position_BK: Tensor, see_BQK: Tensor | None
    ) -> Tensor | dict[str, Tensor]:
        """The same for cached tokens that stand at any positions, of which a query may see those of `see_BQK`
        and no others (None: all that the layers let it)."""
        key = position_BK[:, None, None, :]
        query = position_BQ[:, None, :, None]
        none = torch.zeros((), dtype=torch.long, device=position_BQ.device)
        made = {}
        for kind, rule in self._may_see.items():
            see_B1QK = rule(none, none, query, key)
            made[kind] = self._formed(see_B1QK if see_BQK is None else see_B1QK & see_BQK[:, None])
        return made if self._by_kind else next(iter(made.values()))

    def _formed(self, see_B1QK: Tensor) -> Tensor:
        if self._added is None:
            return see_B1QK
        hidden = torch.finfo(self._added).min
        zero = torch.zeros((), dtype=self._added, device=see_B1QK.device)
        return torch.where(see_B1QK, zero, hidden)


def _rule(config: Any, kind: str) -> Any:
    """transformers' function (batch, head, query, key) -> may see, for a kind of layer."""
    from transformers.masking_utils import (
        causal_mask_function,
        chunked_causal_mask_function,
        sliding_window_causal_mask_function,
    )

    if kind == FULL:
        return causal_mask_function
    if kind == SLIDING:
        return sliding_window_causal_mask_function(window(config, kind))
    if kind == CHUNKED:
        return chunked_causal_mask_function(window(config, kind), torch.zeros(1, dtype=torch.long))
    raise ModelError(f"it has layers of the kind {kind!r}")

"""The engine that is right for most models: each row alone, without padding, over the model's own cache.

Tokens go in once and in order, and none is ever taken back: layers that keep a running state (Qwen3.5, LFM2,
Mamba) could not give it up. A row's result does not depend on its neighbours; it costs a forward per row.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sage.errors import ModelError
from sage.policy.models.load import LanguageModel

CACHES = ("past_key_values", "cache_params", "state")
"""What models call what they remember, as an argument and in their output."""


class RowEngine:
    """See `sage.policy.decoding.engines.Engine`.

    one_by_one: what follows a row's first prompt goes in token by token, for models that forget what they
    remember when several come at once (Jamba and FalconMamba in transformers 5.23).
    Raises ModelError where the model does not hand out what it remembers.
    """

    shares = False
    takes_back = False

    def __init__(self, lm: LanguageModel, slots: int, *, one_by_one: bool = False) -> None:
        self.lm = lm
        self._one_by_one = one_by_one
        self.lengths = [0] * slots
        self._seen = [0] * slots
        self._past: list[Any] = [None] * slots
        takes = inspect.signature(lm.model.forward).parameters
        self._state = next((name for name in CACHES if name in takes), "")
        self._keeps = "logits_to_keep" in takes
        if not self._state:
            raise ModelError(f"{type(lm.model).__name__} takes no cache")

    def release(self, row: int, last: int) -> None:
        for kept in (self.lengths, self._seen, self._past):
            kept[row] = kept[last]
        self.lengths[last], self._seen[last], self._past[last] = 0, 0, None

    @torch.inference_mode()
    def extend(
        self,
        rows: slice,
        ids: Sequence[Sequence[int]],
        keep: Sequence[int],
        shared: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        numbers = range(len(self.lengths))[rows]
        return torch.cat(
            [self._extend(row, new, k) for row, new, k in zip(numbers, ids, keep, strict=True) if new]
        )

    def _extend(self, row: int, ids: Sequence[int], keep: int) -> Tensor:
        """Logits [keep, V] of one row."""
        if self.lengths[row] != self._seen[row]:
            if self.lengths[row]:
                raise ModelError(f"{type(self).__name__} cannot take tokens back.")
            self._past[row] = None
        if not self._one_by_one or self._past[row] is None:
            return self._forward(row, ids, keep)
        each = [self._forward(row, [token], 1) for token in ids]
        return torch.cat(each)[len(ids) - keep :]

    def _forward(self, row: int, ids: Sequence[int], keep: int) -> Tensor:
        output = self.lm.model(
            input_ids=torch.tensor([list(ids)], device=self.lm.device),
            use_cache=True,
            **{self._state: self._past[row]},
            **({"logits_to_keep": max(keep, 1)} if self._keeps else {}),
        )
        self._past[row] = getattr(output, self._state, None)
        if self._past[row] is None:
            raise ModelError(f"{type(self.lm.model).__name__} does not hand out its cache")
        self.lengths[row] = self._seen[row] = self.lengths[row] + len(ids)
        return output.logits[0, output.logits.shape[1] - keep :].float()

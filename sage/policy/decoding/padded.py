"""The engine for any causal LM: transformers' own forward over rows padded into one rectangle.

Shape suffixes: B rows, Q new tokens per row (right-aligned, ragged rows are padded on the left), K cached
positions, V vocabulary. Padding columns write to positions past the row's end, which are masked and later
overwritten, and may read position 0 only, so that they are never NaN. Masks are per kind of layer and in the
form that the model's attention takes (`sage.policy.decoding.masks`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sage.errors import ModelError
from sage.policy.decoding.cache import SlotCache
from sage.policy.decoding.masks import Masks
from sage.policy.models.layers import keeps_state
from sage.policy.models.load import LanguageModel


class PaddedEngine:
    """See `sage.policy.decoding.engines.Engine`; computes shared tokens again.

    Raises ModelError where the model keeps a running state, or its attention takes no mask of our making.
    """

    shares = False
    takes_back = True

    def __init__(self, lm: LanguageModel, slots: int) -> None:
        if keeps_state(lm):
            raise ModelError("it keeps a running state, which padding would change")
        self.lm = lm
        config = lm.model.config.get_text_config()
        self._masks = Masks(config, lm.model.dtype)
        self.cache = SlotCache(slots, config.num_hidden_layers)
        self.lengths = [0] * slots

    @torch.inference_mode()
    def release(self, row: int, last: int) -> None:
        if row != last:
            self.cache.move(last, row, self.lengths[last])
            self.lengths[row] = self.lengths[last]
        self.lengths[last] = 0

    @torch.inference_mode()
    def extend(
        self,
        rows: slice,
        ids: Sequence[Sequence[int]],
        keep: Sequence[int],
        shared: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        # Rows that start now have a long first prompt; feeding them apart spares the others its padding.
        count = len(ids)
        fresh = next((b for b, n in enumerate(self.lengths[rows]) if n == 0), count)
        parts = [(a, b) for a, b in ((0, fresh), (fresh, count)) if any(ids[a:b])]
        return torch.cat(
            [self._extend(slice(rows.start + a, rows.start + b), ids[a:b], keep[a:b]) for a, b in parts]
        )

    def _extend(self, rows: slice, ids: Sequence[Sequence[int]], keep: Sequence[int]) -> Tensor:
        device = self.lm.device
        starts = self.lengths[rows]
        width = max(map(len, ids))
        kv_length = max(start + len(new) for start, new in zip(starts, ids, strict=True))
        ids_BQ = np.full((len(ids), width), self.lm.pad_id, dtype=np.int64)
        write_BQ = np.empty((len(ids), width), dtype=np.int64)
        see_BQ = np.zeros((len(ids), width), dtype=np.int64)
        for b, (start, new) in enumerate(zip(starts, ids, strict=True)):
            pad = width - len(new)
            ids_BQ[b, pad:] = new
            write_BQ[b, pad:] = see_BQ[b, pad:] = np.arange(start, start + len(new))
            write_BQ[b, :pad] = np.arange(start + len(new), start + width)
        window = self.cache.window
        window.rows = rows
        window.positions_BQ = torch.from_numpy(write_BQ).to(device)
        window.kv_length = kv_length
        see = torch.from_numpy(see_BQ).to(device)
        most = max(keep)
        output = self.lm.model(
            input_ids=torch.from_numpy(ids_BQ).to(device),
            attention_mask=self._masks.at(see, kv_length),
            position_ids=see,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=most,
        )
        for offset, new in enumerate(ids):
            self.lengths[rows.start + offset] += len(new)
        wanted_BQ = np.arange(most)[None, :] >= most - np.asarray(keep)[:, None]
        return output.logits[:, -most:].float()[torch.from_numpy(wanted_BQ).to(device)]

"""The engine for any causal LM: transformers' own forward over rows padded into one rectangle.

Shape suffixes: B rows, Q new tokens per row (right-aligned, ragged rows are padded on the left), K cached
positions, V vocabulary. Padding columns write to positions past the row's end, which are masked and later
overwritten, and may read position 0 only, so that they are never NaN. Masks are per kind of layer and in the
form that the model's attention takes (`sage.policy.decoding.masks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from sage.errors import ModelError
from sage.policy.decoding.cache import SlotCache
from sage.policy.decoding.masks import Masks
from sage.policy.models.layers import keeps_state
from sage.policy.models.load import LanguageModel

FEW = 16
"""Most new tokens of a row that goes on with others by a few at a time: one sampled, and guesses."""


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
        logits: dict[int, Tensor] = {}
        for a, b, wanted in self._parts(rows, ids):
            some = [ids[i] if i in wanted else [] for i in range(a, b)]
            kept = [keep[i] if i in wanted else 0 for i in range(a, b)]
            found = self._extend(slice(rows.start + a, rows.start + b), some, kept)
            logits.update(zip(range(a, b), found.split(kept), strict=True))
        return torch.cat([logits[i] for i in range(len(ids)) if ids[i]])

    def _parts(self, rows: slice, ids: Sequence[Sequence[int]]) -> list[tuple[int, int, set[int]]]:
        """Forwards (first, end, rows that take part), so that no row is padded to a much longer one: all that
        go on by a few tokens, and each run of those that read a message, or a whole history."""
        few = {i for i, new in enumerate(ids) if 0 < len(new) <= FEW}
        parts = [(min(few), max(few) + 1, few)] if few else []
        kinds = [(i in few or not new, self.lengths[rows][i] == 0) for i, new in enumerate(ids)]
        for (short, _), run in groupby(range(len(ids)), key=kinds.__getitem__):
            if not short:
                long = list(run)
                parts.append((long[0], long[-1] + 1, set(long)))
        return parts

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

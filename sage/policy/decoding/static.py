"""The engine for a GPU: a plain Llama's or Qwen's modules over a cache of fixed size, in forwards of fixed
shape.

Two forwards, and no other shape: a *step* of `width` tokens for every slot at once, used or not, and a
*chunk* of one row's prompt. On CUDA each is a graph, captured once and replayed, so that a token costs no
launches from Python (`sage.policy.decoding.static_forward`).

Invariant: what a row gets depends on that row alone, in 16 bits too. No shape depends on how many rows are
in use; a slot that rests computes a dummy token, which reads position 0 and is written to the last position
of the cache, which nobody reads. Tokens before the first wanted logit go through chunks, those from there on
through steps, so that a guess changes no other token's way. A prefix that new rows share goes through chunks
once and is copied from slot to slot: a token's place in its chunk changes neither a shape nor the order of
its sums (tested in 16 bits).

Shape suffixes: S slots, B rows of a forward (S, or 1), Q new tokens of each, N = B · Q, W model width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sage.errors import ModelError
from sage.policy.decoding.packed import knows
from sage.policy.decoding.slots import InSlots
from sage.policy.decoding.static_forward import Layers, Program
from sage.policy.models.load import LanguageModel

CHUNK = {"cuda": 256, "cpu": 32}
"""Tokens of a prompt that go through one forward: on a GPU enough to be worth reading the weights for."""
STEP = 256
"""Positions are read in multiples of at least so many: each multiple is a graph of its own."""
BUCKETS = 16
"""Most multiples."""
FIRST = 256
"""Positions of a slot to begin with, where it is not said how long a row may get."""


class StaticEngine(InSlots):
    """See `sage.policy.decoding.engines.Engine`. Reads the parameters live: they may be trained in between.

    room: tokens that a row is expected to need, None where that is not known; where more come, every slot
    grows by half, one layer after the other. width: tokens of a row in one step, one and as many guesses as a
    caller makes. Raises ModelError where it does not know the model.
    """

    def __init__(
        self,
        lm: LanguageModel,
        slots: int,
        *,
        room: int | None = None,
        width: int = 1,
    ) -> None:
        if not knows(lm):
            raise ModelError("it does not know this architecture")
        super().__init__(slots)
        self.lm = lm
        self._room, self._width = room, width
        self._chunk = CHUNK.get(lm.device.type, CHUNK["cpu"])
        self._layers = Layers(lm)
        self._length = 0
        self._programs: dict[tuple[bool, int], Program] = {}
        """By (chunk or step, positions read)."""
        self._graphs: Any = None
        """The memory that all graphs share."""

    @torch.inference_mode()
    def extend(
        self,
        rows: slice,
        ids: Sequence[Sequence[int]],
        keep: Sequence[int],
        shared: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        self._reserve(self._longest(rows, ids))
        numbers = range(len(self.lengths))[rows]
        logits: list[list[Tensor]] = [[] for _ in ids]
        rest: list[Sequence[int]] = []
        for b, (row, new, kept, found) in enumerate(zip(numbers, ids, keep, logits, strict=True)):
            before = len(new) - max(kept, 1) + 1
            if before > 1:
                after_V = self._read(row, new[:before], *(shared[b] if shared else (row, 0)))
                if kept:
                    found.append(after_V)
            rest.append(new[before:] if before > 1 else new)
        for start in range(0, max(map(len, rest)), self._width):
            pieces = [new[start : start + self._width] for new in rest]
            for kept, found, piece_QV in zip(keep, logits, self._step(numbers, pieces), strict=True):
                if kept:
                    found.append(piece_QV)
        return torch.cat([part for found in logits for part in found])

    def _read(self, row: int, ids: Sequence[int], source: int, n: int) -> Tensor:
        """Feed a prompt chunk by chunk, but for its first `n` tokens, which row `source` has read before;
        logits [1, V] after its last token."""
        slot = self._slot[row]
        if n := min(n, self.lengths[source], len(ids) - 1):
            self._layers.copy(self._slot[source], slot, n)
            self.lengths[row] += n
        hidden_QW, last = None, 0
        for start in range(n, len(ids), self._chunk):
            piece = ids[start : start + self._chunk]
            hidden_QW = self._run(True, [(slot, 0, self.lengths[row], piece)], slot)
            self.lengths[row] += len(piece)
            last = len(piece) - 1
        assert hidden_QW is not None
        return self._logits(hidden_QW[last : last + 1])

    def _step(self, rows: range, pieces: Sequence[Sequence[int]]) -> list[Tensor]:
        """Feed each row its piece of at most `width` tokens (none: it rests); their logits [Q, V]."""
        slots = [self._slot[row] for row in rows]
        parts = [
            (slot, slot, self.lengths[row], piece)
            for row, slot, piece in zip(rows, slots, pieces, strict=True)
            if piece
        ]
        # The head sees every slot too, whoever is asked: its shape is fixed as well.
        logits_NV = self._logits(self._run(False, parts, 0))
        for row, piece in zip(rows, pieces, strict=True):
            self.lengths[row] += len(piece)
        places = [slot * self._width for slot in slots]
        return [logits_NV[a : a + len(piece)] for a, piece in zip(places, pieces, strict=True)]

    def _run(self, chunk: bool, parts: Sequence[tuple[int, int, int, Sequence[int]]], slot: int) -> Tensor:
        """Normed hidden states [B · Q, W] of a forward; parts: (slot, row of the forward, start, ids)."""
        rows, width = (1, self._chunk) if chunk else (len(self._slot), self._width)
        # ids, the position up to which each token sees, and the place that it is written to
        given_3BQ = np.zeros((3, rows, width), dtype=np.int64)
        given_3BQ[2] = self._length - 1
        most = 1
        for home, row, start, ids in parts:
            end = start + len(ids)
            first = home * self._layers.kv_heads * self._length
            given_3BQ[0, row, : len(ids)] = ids
            given_3BQ[1, row, : len(ids)] = np.arange(start, end)
            given_3BQ[2, row, : len(ids)] = np.arange(first + start, first + end)
            most = max(most, end)
        return self._program(chunk, self._positions(most)).run(given_3BQ, slot)

    def _program(self, chunk: bool, positions: int) -> Program:
        key = (chunk, positions)
        if key not in self._programs:
            rows, width = (1, self._chunk) if chunk else (len(self._slot), self._width)
            forward = self._layers.of_one_slot if chunk else self._layers.of_all
            if self.lm.device.type == "cuda" and self._graphs is None:
                self._graphs = torch.cuda.graph_pool_handle()
            self._programs[key] = Program(forward, (rows, width), positions, self.lm.device, self._graphs)
        return self._programs[key]

    def _positions(self, most: int) -> int:
        """How many positions are read where the longest row has `most`."""
        step = max(STEP, -(-self._length // BUCKETS // 64) * 64)
        return min(-(-most // step) * step, self._length)

    def _logits(self, hidden_NW: Tensor) -> Tensor:
        return self.lm.model.get_output_embeddings()(hidden_NW).float()

    def _reserve(self, length: int) -> None:
        """Make room for `length` positions in every slot, and one that nobody reads."""
        if length < self._length:
            return
        # One layer after the other: old and new are never both there as a whole.
        most = max(length, self._room or FIRST, 3 * self._length // 2)
        self._length = -(-(most + 1) // 64) * 64
        self._programs.clear()  # they hold on to the old one
        self._layers.allocate(len(self._slot), self._length)

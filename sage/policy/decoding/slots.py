"""Rows that live in slots of a cache: a row that takes another's place takes over its slot, and nothing is
copied."""

from __future__ import annotations

from collections.abc import Sequence


class InSlots:
    """The half of `sage.policy.decoding.engines.Engine` that says which row is where."""

    shares = True
    takes_back = True

    def __init__(self, slots: int) -> None:
        self.lengths = [0] * slots
        self._slot = list(range(slots))
        """Row -> its slot."""

    def release(self, row: int, last: int) -> None:
        self._slot[row], self._slot[last] = self._slot[last], self._slot[row]
        self.lengths[row] = self.lengths[last]
        self.lengths[last] = 0

    def _longest(self, rows: slice, ids: Sequence[Sequence[int]]) -> int:
        """Tokens of the longest of `rows` once `ids` have been appended."""
        return max(n + len(new) for n, new in zip(self.lengths[rows], ids, strict=True))

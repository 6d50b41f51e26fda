"""Where a run's wall time goes, by phase; nested phases are not counted twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PHASES = ("rollout", "judge", "teacher", "student", "evaluation", "other")
"""Phases in the order of every table; `other` is what no phase claimed."""


class PhaseClock:
    """Wall time by phase since it was made, on top of what an earlier attempt had used (`before`).

    A phase inside another one stops the outer one's clock, so the phases and `other` add up to the whole.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0) | dict(before or {})
        self._stack: list[str] = ["other"]
        self._since = time.perf_counter()
        self._taken = dict(self._seconds)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the block as `name` (one of PHASES)."""
        if name not in PHASES:
            raise ValueError(f"{name!r} is not a phase; phases are {', '.join(PHASES)}.")
        self._book()
        self._stack.append(name)
        try:
            yield
        finally:
            self._book()
            self._stack.pop()

    def totals(self) -> dict[str, float]:
        """Seconds by phase so far."""
        self._book()
        return dict(self._seconds)

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last `take`: the `seconds_*` of one optimizer step."""
        totals = self.totals()
        taken = {name: totals[name] - self._taken[name] for name in totals}
        self._taken = totals
        return taken

    def _book(self) -> None:
        now = time.perf_counter()
        self._seconds[self._stack[-1]] += now - self._since
        self._since = now

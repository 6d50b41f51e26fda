"""Where a run's wall time goes, by phase, what is done in it, and the memory that it takes; nested phases are
not counted twice.

    with PhaseClock().running() as clock:
        with phase("teacher"):  # anywhere below, however deep
            tally(operations=2e12)

The clock that runs is a context variable, so nobody has to carry it. Another thread begins with none: what a
judge answers while others still play is the time of that rollout, and of nobody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import get_ident
from typing import Self

from sage.records.activity import doing

PHASES = ("rollout", "judge", "teacher", "student", "evaluation", "other")
"""Phases in the order of every table; `other` is what no phase claimed."""


@dataclass(slots=True)
class Work:
    """What was done in a phase: operations of matrix products, bytes that decoding had to read, and the most
    memory that was in use while it ran (bytes; 0 where nobody measures it)."""

    operations: float = 0.0
    read: float = 0.0
    peak: int = 0


class PhaseClock:
    """Wall time by phase since it was made, on top of what an earlier attempt had used (`before`).

    A phase inside another one stops the outer one's clock, so the phases and `other` add up to the whole.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0) | dict(before or {})
        self._stack: list[str] = ["other"]
        self._since = time.perf_counter()
        self._taken = dict(self._seconds)
        self._thread = get_ident()
        self._work = {name: Work() for name in PHASES}
        self._peak: Callable[[], int] | None = None

    def watch(self, peak: Callable[[], int] | None) -> None:
        """Measure memory from now on: `peak` says how many bytes were in use at most since it was asked
        last."""
        self._peak = peak
        if peak is not None:
            peak()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Inside the block, in this thread, `phase` counts here."""
        self._thread = get_ident()
        token = _running.set(self)
        try:
            yield self
        finally:
            _running.reset(token)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the block as `name` (one of PHASES)."""
        check_phase(name)
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

    def add(self, operations: float, read: float) -> None:
        """Work of the phase that runs."""
        work = self._work[self._stack[-1]]
        work.operations += operations
        work.read += read

    def take_work(self) -> dict[str, Work]:
        """Work by phase since the last `take_work`."""
        self._book()
        taken, self._work = self._work, {name: Work() for name in PHASES}
        return taken

    def _book(self) -> None:
        name, now = self._stack[-1], time.perf_counter()
        self._seconds[name] += now - self._since
        if self._peak is not None:
            self._work[name].peak = max(self._work[name].peak, self._peak())
            now = time.perf_counter()
        self._since = now

    @property
    def is_of_this_thread(self) -> bool:
        """Threads of some versions of Python begin with the variables of the one that started them."""
        return self._thread == get_ident()


_running: ContextVar[PhaseClock | None] = ContextVar("running", default=None)


def check_phase(name: str) -> None:
    """Raises ValueError where `name` is none of PHASES."""
    if name not in PHASES:
        raise ValueError(f"{name!r} is not a phase; phases are {', '.join(PHASES)}.")


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the time inside the block as `name` on the clock that runs in this thread, and say that this is
    what the run does (`sage.records.activity`); nowhere where neither runs."""
    check_phase(name)
    clock = _running.get()
    if clock is None or not clock.is_of_this_thread:
        with doing(name):
            yield
        return
    with clock.phase(name), doing(name):
        yield


def take_seconds() -> dict[str, float]:
    """`PhaseClock.take` of the clock that runs; zeros where none does."""
    clock = _running.get()
    return clock.take() if clock is not None else dict.fromkeys(PHASES, 0.0)


def take_work() -> dict[str, Work]:
    """`PhaseClock.take_work` of the clock that runs; nothing was done where none does."""
    clock = _running.get()
    return clock.take_work() if clock is not None else {name: Work() for name in PHASES}


def tally(*, operations: float = 0.0, read: float = 0.0) -> None:
    """Count work to the phase that runs in this thread; to none where no clock does."""
    clock = _running.get()
    if clock is not None and clock.is_of_this_thread:
        clock.add(operations, read)

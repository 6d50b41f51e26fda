"""What a run is doing at this moment, for whoever watches: the phase, what of it is done, how fast, how much
longer.

    with Activity().running() as activity:
        with doing("rollout"):  # `sage.records.clock.phase` does this too
            expect(8, "episodes", most_turns=30)
            did(turns=1, tokens=40)
            did(1)
    activity.now()  # at any time, from any thread

Kept apart from the records: what stands here goes to the heartbeat and to the terminal, and nothing of a run
depends on it. The activity that runs is a context variable, as the clock is. Time is monotonic.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from sage.records.repeated import repeated

STEP_PHASES = ("rollout", "judge", "teacher", "student")
"""Of `sage.records.clock.PHASES`, what a training step is made of."""
TICK_S = 5.0
_REMEMBERED = 5
"""Steps whose times say how long the next one takes."""


@dataclass(frozen=True, slots=True)
class Now:
    """What a running process does at the moment of its heartbeat; in status.json.

    seconds: at this phase, in this step. done of total: in `unit`, of this process where there are several;
    total is None where nobody knows. turns and tokens: as `sage.records.ledger.WORK` counts them, those of
    episodes that are still played included. phase_left_s: seconds until the phase is over, at most that long
    where `at_most`. step, step_left_s: the training step that is being made (0: none), and the seconds until
    it is; None in the first step of a process, for nobody has seen its later phases.
    """

    phase: str
    seconds: float
    done: int = 0
    total: int | None = None
    unit: str = ""
    turns: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    phase_left_s: float | None = None
    at_most: bool = False
    step: int = 0
    steps: int = 0
    step_left_s: float | None = None


@dataclass(slots=True)
class _Count:
    """What of a phase is done. before: seconds of it in this step when `expect` was called; at: from then to
    the last thing that was done."""

    total: int | None = None
    unit: str = ""
    most_turns: int = 0
    before: float = 0.0
    at: float = 0.0
    done: int = 0
    turns: int = 0
    tokens: int = 0


class Activity:
    """Where one run is; `time_of` is a clock that never goes back."""

    def __init__(self, time_of: Callable[[], float] = time.monotonic) -> None:
        self._time, self._lock = time_of, threading.RLock()
        self._thread = threading.get_ident()
        self._stack: list[str] = []
        self._since = time_of()
        self._took: dict[str, float] = {}
        """Seconds by phase since the step began, or since the last one ended."""
        self._counts: dict[str, _Count] = {}
        self._turns_each: dict[str, float] = {}
        """Turns of an episode in the last such phase."""
        self._step, self._steps = 0, 0
        self._steps_before: deque[dict[str, float]] = deque(maxlen=_REMEMBERED)
        self._listeners: list[Callable[[Now], None]] = []

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Inside the block, in this thread, `doing` and the others count here."""
        self._thread = threading.get_ident()
        token = _running.set(self)
        try:
            yield self
        finally:
            _running.reset(token)

    @property
    def is_of_this_thread(self) -> bool:
        return self._thread == threading.get_ident()

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """See `doing`."""
        with self._lock:
            self._book()
            self._stack.append(what)
            if self._stack.count(what) == 1 and what not in STEP_PHASES:
                self._took.pop(what, None)
                self._counts.pop(what, None)
        try:
            yield
        finally:
            with self._lock:
                self._book()
                self._stack.pop()

    @contextmanager
    def making_step(self, step: int, steps: int) -> Iterator[None]:
        """See `making_step`."""
        with self._lock:
            self._book()
            self._step, self._steps = step, steps
            self._took, self._counts = {}, {}
        try:
            yield
            with self._lock:
                self._book()
                self._steps_before.append({name: self._took.get(name, 0.0) for name in STEP_PHASES})
        finally:
            with self._lock:
                self._step = 0

    def expect(self, total: int | None, unit: str, most_turns: int = 0) -> None:
        """See `expect`."""
        with self._lock:
            self._book()
            if self._stack:
                name = self._stack[-1]
                self._counts[name] = _Count(total, unit, most_turns, self._took.get(name, 0.0))

    def did(self, done: int, turns: int, tokens: int, phase: str | None) -> None:
        """See `did`."""
        with self._lock:
            name = phase or (self._stack[-1] if self._stack else "")
            count = self._counts.setdefault(name, _Count())
            if (turns if count.most_turns else done) and name in self._stack:
                self._book()
                count.at = self._took.get(name, 0.0) - count.before
            count.done += done
            count.turns += turns
            count.tokens += tokens
            if done and count.most_turns and count.done == count.total:
                self._turns_each[name] = count.turns / count.done

    def now(self) -> Now | None:
        """What is done at this moment; None where nobody has said."""
        with self._lock:
            if not self._stack:
                return None
            self._book()
            name = self._stack[-1]
            count = self._counts.get(name, _Count())
            seconds = self._took.get(name, 0.0) - count.before
            left, at_most = self._phase_left(name, count, seconds)
            return Now(
                phase=name,
                seconds=round(seconds, 3),
                done=count.done,
                total=count.total,
                unit=count.unit,
                turns=count.turns,
                tokens=count.tokens,
                tokens_per_second=round(count.tokens / seconds, 1) if count.tokens and seconds > 0 else None,
                phase_left_s=_rounded(left),
                at_most=at_most,
                step=self._step,
                steps=self._steps if self._step else 0,
                step_left_s=_rounded(self._step_left(name, left)) if self._step else None,
            )

    @contextmanager
    def listening(self, listener: Callable[[Now], None]) -> Iterator[None]:
        """Inside the block, `listener` hears of each heartbeat, in the heartbeat's thread."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def ticking(self, every_s: float = TICK_S) -> Iterator[None]:
        """Tell who listens from a thread while the block runs."""

        def tick() -> None:
            with suppress(OSError):
                self.tell()

        with repeated(tick, every_s, "activity"):
            yield

    def tell(self) -> None:
        """A heartbeat: whoever listens hears what is done now."""
        if (now := self.now()) is not None:
            for listener in list(self._listeners):
                listener(now)

    def _book(self) -> None:
        now = self._time()
        if self._stack:
            name = self._stack[-1]
            self._took[name] = self._took.get(name, 0.0) + now - self._since
        self._since = now

    def _phase_left(self, name: str, count: _Count, seconds: float) -> tuple[float | None, bool]:
        """Seconds until the phase is over, and whether that is a bound."""
        done, rest, bound = float(count.done), float((count.total or 0) - count.done), False
        if count.most_turns:
            usual = self._turns_each.get(name)
            bound, turns = usual is None, (count.total or 0) * (usual or count.most_turns)
            # Each episode that is played has a turn to come, however many there have been.
            done, rest = float(count.turns), max(rest, turns - count.turns)
        if not count.total or not done:
            return None, False
        each = count.at / done
        return max(0.0, rest) * each - min(seconds - count.at, each * (rest > 0)), bound

    def _step_left(self, name: str, phase_left: float | None) -> float | None:
        """As long as the phases took in the steps before; the one that runs, as its own counts say."""
        if not self._steps_before:
            return None
        left = 0.0
        for phase in STEP_PHASES:
            usual = sum(step[phase] for step in self._steps_before) / len(self._steps_before)
            rest = max(0.0, usual - self._took.get(phase, 0.0))
            left += phase_left if phase == name and phase_left is not None else rest
        return left


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


_running: ContextVar[Activity | None] = ContextVar("activity", default=None)
_counted_as: ContextVar[str | None] = ContextVar("counted_as", default=None)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Say that the run does this inside the block (`loading the teacher`), inside whatever it did before."""
    activity = _running.get()
    if activity is None or not activity.is_of_this_thread:
        yield
        return
    with activity.doing(what):
        yield


@contextmanager
def making_step(step: int, steps: int) -> Iterator[None]:
    """Training step `step` of `steps` is made inside the block."""
    activity = _running.get()
    if activity is None:
        yield
        return
    with activity.making_step(step, steps):
        yield


def expect(total: int | None, unit: str, most_turns: int = 0) -> None:
    """The phase that runs begins to do `total` things (None: nobody knows how many); what it has done before
    does not count with them. most_turns: of each, where they are episodes."""
    activity = _running.get()
    if activity is not None and activity.is_of_this_thread:
        activity.expect(total, unit, most_turns)


def did(done: int = 0, *, turns: int = 0, tokens: int = 0) -> None:
    """So many more are done by the phase that runs, or by the one that is `counted_as`; from any thread that
    has the context."""
    activity = _running.get()
    if activity is not None:
        activity.did(done, turns, tokens, _counted_as.get())


@contextmanager
def counted_as(phase: str) -> Iterator[None]:
    """What is done inside the block belongs to `phase`, whichever runs meanwhile in the main thread."""
    token = _counted_as.set(phase)
    try:
        yield
    finally:
        _counted_as.reset(token)


def of_this_run() -> Activity:
    """The activity that runs; one of which nobody hears where none does."""
    return _running.get() or Activity()

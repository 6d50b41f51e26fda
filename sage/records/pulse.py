"""What a run does, in one line; said in its log and where there is no live view, a line a minute at most."""

from __future__ import annotations

import time
from collections.abc import Callable

from sage.records.activity import Now

SILENCE_S = 60.0
"""After so long without a line, a log says what is done."""


class EveryMinute:
    """Says what is done, after every `SILENCE_S` in which nothing was `spoken`; for the first time after
    `first_s` (None: as long)."""

    def __init__(
        self,
        say: Callable[[str], None],
        first_s: float | None = None,
        time_of: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._time = say, time_of
        self._last = time_of() if first_s is None else time_of() + first_s - SILENCE_S

    def spoken(self) -> None:
        """Something else was said."""
        self._last = self._time()

    def __call__(self, now: Now) -> None:
        if self._time() - self._last >= SILENCE_S:
            self.spoken()
            self._say(now_line(now))


def now_line(now: Now) -> str:
    """What a run does, in one line; what is not known is left out."""
    head = f"step {now.step}/{now.steps}, {now.phase}" if now.step else now.phase
    parts = [f"{head} for {duration(now.seconds)}"]
    if now.unit:
        parts.append(f"{now.done:,} of {now.total:,} {now.unit}" if now.total else f"{now.done:,} {now.unit}")
    if now.turns:
        parts.append(f"{now.turns:,} turns")
    if now.tokens_per_second:
        parts.append(f"{now.tokens_per_second:,.0f} tokens/s")
    if now.phase_left_s is not None:
        parts.append(f"{'at most' if now.at_most else 'about'} {duration(now.phase_left_s)} of it left")
    if now.step_left_s is not None:
        parts.append(f"about {duration(now.step_left_s)} of the step left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

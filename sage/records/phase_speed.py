"""What each phase of a training reached, over all its steps; from the steps table alone.

Records that are older than the `speed_` columns have tokens and seconds: the rest of their lines is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage.records.ledger import WORK, ledger


@dataclass(frozen=True, slots=True)
class PhaseSpeed:
    """One phase: wall seconds, its tokens a second, the most memory of a step (GiB), and its shares of the
    device's matrix and memory rates, steps weighed by their seconds; None where the records do not say."""

    phase: str
    seconds: float
    tokens_per_second: float | None
    peak_gib: float | None
    matrix_share: float | None
    memory_share: float | None


def phase_speeds(steps: Sequence[Mapping[str, Any]]) -> tuple[PhaseSpeed, ...]:
    """One for each phase with tokens of its own (`sage.records.ledger.WORK`) that has taken time."""
    book = ledger(steps)
    rates = book.tokens_per_second
    return tuple(
        PhaseSpeed(
            phase,
            book.seconds[phase],
            rates.get(phase),
            max((row[name] for row in steps if row.get(name := f"speed_peak_{phase}")), default=None),
            _mean(steps, f"speed_matrix_{phase}", phase),
            _mean(steps, f"speed_memory_{phase}", phase),
        )
        for phase in WORK
        if book.seconds[phase]
    )


def _mean(steps: Sequence[Mapping[str, Any]], column: str, phase: str) -> float | None:
    known = [
        (row[column], row.get(f"seconds_{phase}") or 0.0) for row in steps if row.get(column) is not None
    ]
    seconds = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / seconds if seconds else None

"""Everything that was loaded, as one value; and several of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sage.records.run_ledger import RunLedger

TABLES = ("episodes", "turns", "steps")
OF_RUNS = ("configs", "pairs", "provenance", "others", "touched", "digests")
"""Fields of `Records` that hold one entry for each run."""


@dataclass(frozen=True)
class Records:
    """Everything that was loaded. `runs` has one row per run, finished or not; the other tables hold the
    rows of finished runs only. `configs` maps a run to its flattened settings, `provenance` to its
    provenance, `others` to the states of its attempts that are not in the numbers, `touched` to what shows
    that its records are not as it wrote them (absent where nothing does), `digests` to those that it wrote
    at its end (`sage.records.seal`), `pairs` to what makes it the partner of another run (`analysis.pairs`;
    empty for plain tables). `ledger` has the lines beside the runs (`sage.records.run_ledger`)."""

    runs: pd.DataFrame
    episodes: pd.DataFrame
    turns: pd.DataFrame = field(default_factory=pd.DataFrame)
    steps: pd.DataFrame = field(default_factory=pd.DataFrame)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: dict[str, dict[str, str]] = field(default_factory=dict)
    touched: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    pairs: dict[str, dict[str, Any]] = field(default_factory=dict)
    ledger: RunLedger = field(default_factory=RunLedger)
    notes: tuple[str, ...] = ()

    @property
    def unused(self) -> pd.DataFrame:
        """Runs that are not finished: failed, running, or without records."""
        return self.runs[~self.runs["used"].astype(bool)]


def concat(parts: Sequence[Records]) -> Records:
    """All parts as one; of a run that is in several the last one's entries count."""

    def stack(name: str) -> pd.DataFrame:
        frames = [getattr(part, name) for part in parts if len(getattr(part, name))]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def merged(name: str) -> dict[str, Any]:
        return {run: value for part in parts for run, value in getattr(part, name).items()}

    runs = stack("runs")
    if len(runs):
        runs = runs.sort_values(["method", "env", "seed", "run"], kind="stable").reset_index(drop=True)
    return Records(
        runs=runs,
        **{name: stack(name) for name in TABLES},
        **{name: merged(name) for name in OF_RUNS},
        ledger=RunLedger(
            tuple(entry for part in parts for entry in part.ledger.entries),
            tuple(problem for part in parts for problem in part.ledger.problems),
        ),
        notes=tuple(note for part in parts for note in part.notes),
    )


NOTHING = Records(runs=pd.DataFrame(), episodes=pd.DataFrame())

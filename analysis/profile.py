"""Performance over task types: profiles and interquartile means (Agarwal et al. 2021), on rates, never on
0/1 games.

The unit is the success rate of one run on one task type: on single games the interquartile mean of 0/1
values is degenerate (a true 0.2 gives 0, 0.8 gives 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import each_split
from analysis.check import select
from analysis.question import EVERYTHING, Question
from analysis.records import Records

DRAWS = 1000
TAUS = np.round(np.linspace(0, 1, 21), 2)
"""Levels of a rate; a graded score takes as many from its lowest (or 0) to its highest task type mean."""


def _levels(rates: pd.DataFrame, metric: str) -> np.ndarray:
    if metric == "won":
        return TAUS
    values = rates.to_numpy(float)
    return np.linspace(min(0.0, float(values.min())), max(0.0, float(values.max())), len(TAUS))


def task_type_rates(episodes: pd.DataFrame, metric: str = "won") -> pd.DataFrame:
    """[runs × task types] rates of one env × split, indexed by method and run."""
    ok = episodes[episodes["ok"]]
    return ok.pivot_table(
        index=["method", "run"], columns="task_type", values=metric, aggfunc="mean", observed=True
    )


def iqm(values: Any) -> float:
    """Interquartile mean: the mean without the lowest and the highest quarter (scipy's `trim_mean(0.25)`)."""
    ordered = np.sort(np.asarray(values, float).ravel())
    cut = int(0.25 * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def _draws(rates: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[draws, runs, types]: runs resampled separately for each task type (rliable's stratified bootstrap)."""
    runs, types = rates.shape
    picked = rng.integers(0, runs, (draws, runs, types))
    return np.take_along_axis(np.broadcast_to(rates, (draws, runs, types)), picked, axis=1)


def profiles(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """Share of run × task type rates that reach τ, per method and split, with a pointwise bootstrap band.

    The band resamples runs within task types, as rliable does; it is for the eye. With few runs it is too
    narrow (`docs/evidence/coverage.md`), so no claim rests on it.
    """
    rows, tails = [], [0.5 - question.level / 2, 0.5 + question.level / 2]
    for group in each_split(select(records, question)):
        table = task_type_rates(group, question.metric).dropna(axis=1)
        levels = _levels(table, question.metric)
        for method, part in table.groupby(level="method", sort=True):
            rates = part.to_numpy(float)
            rng, draws = np.random.default_rng(question.seed), question.draws or DRAWS
            drawn = np.stack([(_draws(rates, draws, rng) >= tau).mean(axis=(1, 2)) for tau in levels], axis=1)
            low, high = np.quantile(drawn, tails, axis=0)
            for i, tau in enumerate(levels):
                rows.append(
                    {
                        "env": group["env"].iloc[0],
                        "split": group["split"].iloc[0],
                        "method": method,
                        "tau": float(tau),
                        "share": float((rates >= tau).mean()),
                        "low": float(low[i]),
                        "high": float(high[i]),
                    }
                )
    return pd.DataFrame(rows)


def interquartile_means(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """IQM of the run × task type rates per method and split."""
    rows = []
    for group in each_split(select(records, question)):
        table = task_type_rates(group, question.metric).dropna(axis=1)
        for method, part in table.groupby(level="method", sort=True):
            rows.append(
                {
                    "env": group["env"].iloc[0],
                    "split": group["split"].iloc[0],
                    "method": method,
                    "rates": part.size,
                    "iqm": iqm(part),
                    "mean": float(part.to_numpy(float).mean()),
                }
            )
    return pd.DataFrame(rows)

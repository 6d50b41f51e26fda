"""Episodes that are not ok: what a rate or a difference could be, whatever they would have ended as.

An episode with `env_error` or `policy_error` says nothing about the agent, so it is missing, not lost. But
where it is missing for a reason (the losses are those that crash) a rate without it is wrong. So every rate
and difference also has its bounds: all such episodes lost, all won (for graded scores: at the lowest and at
the highest score that was seen). A finding survives where it holds at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import Cells, cells
from analysis.designs import Design, error_at_margin
from analysis.significance import equivalence, t_test

COLUMNS = (
    "mean_low",
    "mean_high",
    "mean_baseline_low",
    "mean_baseline_high",
    "bounds_low",
    "bounds_high",
    "ok_games",
    "difference_ok_games",
    "p_if_lost",
    "p_if_won",
    "p_equivalent_worst",
    "p_new_games_if_lost",
    "p_new_games_if_won",
    "p_equivalent_new_games_worst",
)
"""Columns of a comparison that only rows with such episodes have."""


@dataclass(frozen=True)
class Bounded:
    """The cell tables of one place with every episode that is not ok at its lowest and at its highest."""

    low: Cells
    high: Cells

    @classmethod
    def of(cls, episodes: pd.DataFrame, metric: str, average: str = "micro") -> Bounded | None:
        """None where all of these episodes are ok."""
        ok = episodes["ok"].to_numpy(bool)
        if ok.all():
            return None
        seen = pd.to_numeric(episodes.loc[ok, metric])
        ends = (0.0, 1.0) if metric == "won" else (float(seen.min()), float(seen.max()))
        low, high = (
            cells(episodes.assign(**{metric: episodes[metric].where(ok, end), "ok": True}), metric, average)
            for end in ends
        )
        return cls(low, high)

    def rate(self, method: str) -> dict[str, float]:
        """`bounds_low` and `bounds_high` of a method's mean."""
        return {"bounds_low": self.low.sample(method).mean, "bounds_high": self.high.sample(method).mean}


def rate_bounds(episodes: pd.DataFrame, method: str, metric: str, average: str = "micro") -> dict[str, float]:
    """`bounds_low` and `bounds_high` of a method's mean in one place; nan where all its episodes are ok."""
    bounded = Bounded.of(episodes[episodes["method"] == method], metric, average)
    return bounded.rate(method) if bounded else {"bounds_low": np.nan, "bounds_high": np.nan}


def without_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns of bounds, where every episode is ok."""
    empty = [name for name in ("bounds_low", "bounds_high") if name in frame and frame[name].isna().all()]
    return frame.drop(columns=empty)


def difference_bounds(
    bounded: Bounded | None,
    table: Cells,
    design: Design,
    method: str,
    baseline: str,
    margin: float | None,
) -> dict[str, Any]:
    """The columns `COLUMNS` of one comparison; empty where all episodes of both sides are ok.

    `bounds_low`: the method's episodes that are not ok are lost and the baseline's won; `bounds_high`: the
    other way round. `p_if_lost`, `p_if_won`: p of the design's test there. `difference_ok_games` is over the
    `ok_games` that every run of both sides has ok.
    """
    mine, base = design.rows(table, method, baseline)
    if bounded is None or not table.not_ok[np.concatenate([mine, base])].any() or not len(mine):
        return {}
    ends = {
        "lost": mixed(table, method, baseline, bounded.low, bounded.high),
        "won": mixed(table, method, baseline, bounded.high, bounded.low),
    }
    shared = ~np.isnan(table.values[np.concatenate([mine, base])]).any(axis=0)
    weights = table.weights[shared]
    low, high = bounded.low.run_means(), bounded.high.run_means()
    test = {end: design.test(mixed, method, baseline).test for end, mixed in ends.items()}
    row: dict[str, Any] = {
        "mean_low": float(low[mine].mean()),
        "mean_high": float(high[mine].mean()),
        "mean_baseline_low": float(low[base].mean()),
        "mean_baseline_high": float(high[base].mean()),
        "bounds_low": test["lost"].difference,
        "bounds_high": test["won"].difference,
        "ok_games": int(shared.sum()),
        "p_if_lost": test["lost"].p,
        "p_if_won": test["won"].p,
    }
    if shared.any():
        means = table.values[:, shared] @ weights / weights.sum()
        row["difference_ok_games"] = float(means[mine].mean() - means[base].mean())
    new_games = {end: design.crossed(mixed, method, baseline) for end, mixed in ends.items()}
    row |= {f"p_new_games_if_{end}": t_test(*found) for end, found in new_games.items()}
    if margin is not None:
        for column, ends_of in (
            ("p_equivalent_worst", {end: (t.difference, t.se, t.df) for end, t in test.items()}),
            ("p_equivalent_new_games_worst", new_games),
        ):
            row[column] = max(
                equivalence(d, error_at_margin(design, ends[end], method, baseline, se, margin), df, margin)
                for end, (d, se, df) in ends_of.items()
            )
    return row


def mixed(table: Cells, method: str, baseline: str, mine: Cells, theirs: Cells) -> Cells:
    """The table with the method's runs of `mine` and the baseline's of `theirs`; others stay as they are."""
    values = table.values.copy()
    for name, source in ((method, mine), (baseline, theirs)):
        values[table.rows(name)] = source.values[source.rows(name)]
    return replace(table, values=values, grain=mine.grain)

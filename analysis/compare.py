"""Each method against a baseline: effect, interval, test, corrections, equivalence and what could have been
seen.

Three estimands, and the row says which it has:
- `recipe on this benchmark`: the run is the unit; Welch's t on run means is the headline test, the run-label
  permutation stands beside it from 5 runs on.
- `recipe on new games`: runs and games both random; the headline interval is the calibrated two-way
bootstrap.
- `these two checkpoints`: one run on a side; McNemar over the games, and no word about the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.bootstrap import resampled_run_means, two_way
from analysis.cells import Cells, cells, each_place, each_split
from analysis.check import select
from analysis.errors import Refusal
from analysis.intervals import newcombe_paired
from analysis.load import Records
from analysis.not_ok import Bounded, difference_bounds
from analysis.significance import equivalence, mcnemar, permutation, t_test, tost, welch
from analysis.verdict import checkpoint_verdict, corrected, recipe_verdict

RECIPE = "recipe; test on this benchmark, interval also for new games"
CHECKPOINT = "these two checkpoints on games like these; not the recipe"
SPREADS = ("runs", "games: these runs differ by less than their games leave to chance")
"""Where the standard error comes from (`analysis.runmeans`)."""
MIN_RUNS_PERMUTATION = 5
"""Fewer runs a side cannot reach p < 0.05 by permutation with room for a correction (3 against 3: p ≥
0.10)."""


def compare(
    records: Records,
    baseline: str,
    *,
    metric: str = "won",
    average: str = "micro",
    family: Sequence[str] | None = None,
    margin: float | None = None,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    **choice: Any,
) -> pd.DataFrame:
    """One row per method, env and split, or per method and env with `average="splits"`. `family` names the
    methods of the declared family: their p values get Holm's correction (over all their rows), all others
    Benjamini and Hochberg's. `margin` (in the metric's unit, positive) adds the equivalence test, corrected
    likewise. `detectable` is the true effect that this many runs with this spread find with power 0.8 at the
    level that decides after the correction, with the interval that the spread's own uncertainty leaves it.
    Where episodes are not ok, the columns of `analysis.not_ok` bound what they could have been.
    """
    episodes = select(records, **choice)
    rows: list[dict[str, Any]] = []
    for group in each_place(episodes, average):
        table = cells(group, metric, average)
        if baseline not in table.methods:
            raise Refusal(
                f"There is no run of the baseline {baseline!r} on {table.env} {table.split}; methods "
                f"there are "
                f"{', '.join(sorted(set(table.methods)))}."
            )
        found = _compare_split(table, records, baseline, metric, average, margin, draws, level, seed)
        bounded = Bounded.of(group, metric, average)
        rows += [row | difference_bounds(bounded, table, row["method"], baseline, margin) for row in found]
    if not rows:
        raise Refusal(f"There is no method to compare with {baseline!r}.")
    frame = pd.DataFrame(rows)
    declared = frame["method"].isin(list(family or ()))
    absent = sorted(set(family or ()) - set(frame["method"]))
    if absent:
        raise Refusal(f"The declared family names {', '.join(absent)}, of which there is no run.")
    frame["family"] = np.where(declared, "declared", "exploratory")
    frame = corrected(frame, declared, frame["estimand"] == RECIPE, level)
    frame["verdict"] = [
        recipe_verdict(row, level, margin) if row["estimand"] == RECIPE else checkpoint_verdict(row, level)
        for row in frame.to_dict("records")
    ]
    return frame


def _compare_split(
    table: Cells,
    records: Records,
    baseline: str,
    metric: str,
    average: str,
    margin: float | None,
    draws: int,
    level: float,
    seed: int,
) -> list[dict[str, Any]]:
    methods = [method for method in sorted(set(table.methods)) if method != baseline]
    base = table.rows(baseline)
    run_means = table.run_means()
    if np.isnan(run_means).any():
        empty = table.runs[int(np.flatnonzero(np.isnan(run_means))[0])]
        raise Refusal(f"Run {empty} has no ok episode on {table.env} {table.split}; repair or leave it out.")
    shared = None
    if len(base) > 1 and any(len(table.rows(method)) > 1 for method in methods):
        rng = np.random.default_rng([seed, 1])
        # One resample of games for all methods: faster, and their intervals then rest on the same draws.
        shared = resampled_run_means(table.values, table.strata, table.weights, draws, rng)
    rows = []
    for index, method in enumerate(methods):
        mine = table.rows(method)
        unused = records.unused
        unfinished = int((unused["method"].isin([method, baseline]) & (unused["env"] == table.env)).sum())
        row: dict[str, Any] = {
            "env": table.env,
            "source": table.source,
            "split": table.split,
            "metric": metric,
            "average": average,
            "method": method,
            "baseline": baseline,
            "runs": len(mine),
            "runs_baseline": len(base),
            "runs_unfinished": unfinished,
            "games": len(table.games),
            "episodes_not_ok": int(table.not_ok[np.concatenate([mine, base])].sum()),
            "episodes_context_full": int(table.context_full[np.concatenate([mine, base])].sum()),
            "mean": float(run_means[mine].mean()),
            "mean_baseline": float(run_means[base].mean()),
        }
        row["difference"] = row["mean"] - row["mean_baseline"]
        row["relative"] = row["difference"] / row["mean_baseline"] if row["mean_baseline"] > 0 else np.nan
        if len(mine) > 1 and len(base) > 1:
            row |= _recipe(table, method, baseline, shared, draws, level, [seed, 2, index], margin)
        else:
            row |= _checkpoints(table, mine, base, metric, level)
        rows.append(row)
    return rows


def _recipe(
    table: Cells,
    method: str,
    baseline: str,
    shared: np.ndarray | None,
    draws: int,
    level: float,
    seed: Any,
    margin: float | None,
) -> dict[str, Any]:
    mine, base = table.sample(method), table.sample(baseline)
    test = welch(mine, base, level)
    rows = table.rows(method), table.rows(baseline)
    boot = two_way(
        table.values, *rows, table.strata, table.weights, shared, draws, level, seed, grain=table.grain
    )
    row = {
        "estimand": RECIPE,
        "low": boot.low,
        "high": boot.high,
        "test": "Welch on run means",
        "spread": SPREADS[mine.floored or base.floored],
        "p": test.p,
        "t": test.t,
        "se": test.se,
        "df": test.df,
        "welch_low": test.low,
        "welch_high": test.high,
        "p_permutation": np.nan,
        "p_new_games": t_test(boot.difference, boot.se, boot.df),
    }
    if min(len(mine), len(base)) >= MIN_RUNS_PERMUTATION:
        row["p_permutation"] = permutation(mine, base)[0]
    if margin is not None:
        row["margin"] = margin
        row["p_equivalent"] = tost(mine, base, margin)
        row["p_equivalent_new_games"] = equivalence(boot.difference, boot.se, boot.df, margin)
    return row


def _checkpoints(
    table: Cells, mine: np.ndarray, base: np.ndarray, metric: str, level: float
) -> dict[str, Any]:
    """One run on at least one side: McNemar where both have one, otherwise the difference without a test."""
    empty = {
        "estimand": CHECKPOINT,
        "low": np.nan,
        "high": np.nan,
        "test": "none: one run has no spread",
        "spread": "",
        "p": np.nan,
        "t": np.nan,
        "se": np.nan,
        "df": np.nan,
        "welch_low": np.nan,
        "welch_high": np.nan,
        "p_permutation": np.nan,
        "p_new_games": np.nan,
    }
    if len(mine) > 1 or len(base) > 1:
        return empty
    return empty | _mcnemar(table.values[mine[0]], table.values[base[0]], metric, level)


def _mcnemar(a: np.ndarray, b: np.ndarray, metric: str, level: float) -> dict[str, Any]:
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if metric != "won" or not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        return {"test": "none: McNemar needs one won/lost result a game"}
    both, only_a, only_b = int((a * b).sum()), int((a * (1 - b)).sum()), int((b * (1 - a)).sum())
    low, high = newcombe_paired(both, only_a, only_b, len(a) - both - only_a - only_b, level)
    return {"test": "McNemar, exact", "p": mcnemar(only_a, only_b), "low": low, "high": high}


def checkpoints(records: Records, baseline: str, level: float = 0.95, **choice: Any) -> pd.DataFrame:
    """Every pair of single checkpoints with the same seed: McNemar and Newcombe's paired interval.

    Exploratory by nature: each row speaks of two checkpoints. Pooling these games over runs rejects a true
    null of the recipe 11 to 17 % of the time, so nothing here is pooled.
    """
    episodes = select(records, **choice)
    rows = []
    for group in each_split(episodes):
        table = cells(group)
        base = {table.seeds[row]: row for row in table.rows(baseline)}
        for row in range(len(table.runs)):
            partner = base.get(table.seeds[row])
            if table.methods[row] == baseline or partner is None:
                continue
            means = table.run_means()
            rows.append(
                {
                    "env": table.env,
                    "source": table.source,
                    "split": table.split,
                    "method": table.methods[row],
                    "baseline": baseline,
                    "seed": table.seeds[row],
                    "estimand": CHECKPOINT,
                    "difference": means[row] - means[partner],
                    "low": np.nan,
                    "high": np.nan,
                    "p": np.nan,
                    **_mcnemar(table.values[row], table.values[partner], "won", level),
                }
            )
    return pd.DataFrame(rows)


def tables(
    records: Records, baseline: str, *, paired_checkpoints: bool = False, **options: Any
) -> dict[str, Any]:
    """`compare`, and with `paired_checkpoints` also `checkpoints`."""
    result = {"compare": compare(records, baseline, **options)}
    if paired_checkpoints:
        known = ("env", "split", "source", "methods", "step", "games", "leave_out", "level")
        result["checkpoints"] = checkpoints(
            records, baseline, **{k: v for k, v in options.items() if k in known}
        )
    return result

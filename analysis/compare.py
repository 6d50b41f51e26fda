"""Each method against a baseline: effect, interval, test, corrections, equivalence and what could have been
seen.

Three estimands, and the row says which it has:
- `recipe on this benchmark`: the run is the unit; the test is that of the design (`analysis.designs`):
  Welch's t on run means, the paired t on seed differences, or the seed-blocked analysis of variance. A
  permutation of labels (from 5 runs on) or of signs (from 6 pairs on) stands beside it.
- `recipe on new games`: runs and games both random; the headline interval is the calibrated two-way
bootstrap.
- `these two checkpoints`: one run on a side; McNemar over the games, and no word about the recipe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import Cells, cells, each_place, each_split
from analysis.check import check_baseline, check_margin, select
from analysis.designs import design_of, error_at_margin, resampled
from analysis.errors import Refusal
from analysis.intervals import newcombe_paired
from analysis.not_ok import Bounded, difference_bounds
from analysis.pairs import check_pairs, correlation, paired_by, real_pairs
from analysis.power import detectable
from analysis.question import Question
from analysis.records import Records
from analysis.significance import equivalence, mcnemar, t_test
from analysis.verdict import checkpoint_verdict, corrected, recipe_verdict

DRAWS = 10_000
RECIPE = "recipe; test on this benchmark, interval also for new games"
CHECKPOINT = "these two checkpoints on games like these; not the recipe"
OTHER = {"independent": "paired", "paired": "independent", "blocked": "independent"}
"""The design whose p stands beside that of the one that was chosen."""
BOUNDS = ("low", "high", "welch_low", "welch_high")
"""Ends of intervals of the difference."""


def compare(records: Records, question: Question) -> pd.DataFrame:
    """One row per method, env and split, or per method and env with `average="splits"`.

    Methods of the declared `family` get Holm's correction of their p values (over all their rows), all
    others Benjamini and Hochberg's. A `margin` (positive) adds the equivalence test, corrected likewise.
    `detectable` is the true effect that this many runs with this spread find with power 0.8 at the level that
    decides after the correction, with the interval that the spread's own uncertainty leaves it. Where
    episodes are not ok, the columns of `analysis.not_ok` bound what they could have been.

    In a `paired` or `blocked` design runs without a partner are refused, or left out with
    `unpaired="drop"`. Blocked comparisons are corrected by Dunnett's method in place of
    the two above. `pair_correlation` says how alike pairs end, `p_other` and `detectable_other` what the
    `other_design` would have shown: that decides nothing.
    """
    baseline, design = question.against, design_of(question.design)
    check_margin(question.margin, question.metric)
    episodes = select(records, question)
    rows: list[dict[str, Any]] = []
    for group in each_place(episodes, question.average):
        table = cells(group, question.metric, question.average)
        check_baseline(baseline, table.methods, f" on {table.env} {table.split}")
        check_pairs(records, table, question)
        bounded = Bounded.of(group, question.metric, question.average)
        rows += [
            row | difference_bounds(bounded, table, design, row["method"], baseline, question.margin)
            for row in _compare_place(table, records, question)
        ]
    if not rows:
        raise Refusal(f"There is no method to compare with {baseline!r}.")
    frame = pd.DataFrame(rows)
    declared = frame["method"].isin(question.family)
    absent = sorted(set(question.family) - set(frame["method"]))
    if baseline in absent:
        raise Refusal(f"The declared family names {baseline}, the baseline; name the methods held to it.")
    if absent:
        raise Refusal(f"The declared family names {', '.join(absent)}, of which there is no run.")
    frame["family"] = np.where(declared, "declared", "exploratory")
    frame = corrected(frame, declared, frame["estimand"] == RECIPE, question.level)
    frame["verdict"] = [
        recipe_verdict(row, question.level, question.margin)
        if row["estimand"] == RECIPE
        else checkpoint_verdict(row, question.level)
        for row in frame.to_dict("records")
    ]
    return frame


def _compare_place(table: Cells, records: Records, question: Question) -> list[dict[str, Any]]:
    baseline, design = question.against, design_of(question.design)
    methods = [method for method in sorted(set(table.methods)) if method != baseline]
    run_means = table.run_means()
    if np.isnan(run_means).any():
        empty = table.runs[int(np.flatnonzero(np.isnan(run_means))[0])]
        raise Refusal(f"Run {empty} has no ok episode on {table.env} {table.split}; repair or leave it out.")
    shared = None
    if len(table.rows(baseline)) > 1 and any(len(table.rows(method)) > 1 for method in methods):
        # One resample of games for all methods: faster, and their intervals then rest on the same draws.
        shared = resampled(table, question.draws or DRAWS, np.random.default_rng([question.seed, 1]))
    rows = []
    for index, method in enumerate(methods):
        mine, base = design.rows(table, method, baseline)
        row = _means(table, records, question, method)
        if shared is not None and len(mine) > 1 and len(base) > 1:
            row |= _recipe(table, question, method, shared, [question.seed, 2, index])
            row |= _as_pairs(records, table, question, method)
            if question.metric == "won":  # No two rates differ by more than 1.
                row |= {end: float(np.clip(row[end], -1, 1)) for end in BOUNDS}
        else:
            row |= _checkpoints(table, mine, base, question)
        rows.append(row)
    return rows


def _means(table: Cells, records: Records, question: Question, method: str) -> dict[str, Any]:
    """What is compared: which runs, on how many games, and both means."""
    baseline, run_means = question.against, table.run_means()
    mine, base = design_of(question.design).rows(table, method, baseline)
    both = np.concatenate([mine, base])
    unused = records.unused
    unfinished = unused["method"].isin([method, baseline]) & (unused["env"] == table.env)
    row: dict[str, Any] = {
        "env": table.env,
        "source": table.source,
        "split": table.split,
        "metric": question.metric,
        "average": question.average,
        "method": method,
        "baseline": baseline,
        "runs": len(mine),
        "runs_baseline": len(base),
        "runs_unfinished": int(unfinished.sum()),
        "design": question.design,
        "games": len(table.games),
        "episodes_not_ok": int(table.not_ok[both].sum()),
        "episodes_context_full": int(table.context_full[both].sum()),
        "mean": float(run_means[mine].mean()),
        "mean_baseline": float(run_means[base].mean()),
    }
    row["difference"] = row["mean"] - row["mean_baseline"]
    row["relative"] = row["difference"] / row["mean_baseline"] if row["mean_baseline"] > 0 else np.nan
    return row


def _recipe(
    table: Cells, question: Question, method: str, shared: np.ndarray, seed: list[int]
) -> dict[str, Any]:
    design, baseline, margin = design_of(question.design), question.against, question.margin
    tested = design.test(table, method, baseline, question.level)
    test = tested.test
    boot = design.interval(table, method, baseline, shared, question.level, seed)
    row = {
        "estimand": RECIPE,
        "difference": test.difference,
        "low": boot.low,
        "high": boot.high,
        "test": design.title,
        "spread": tested.spread,
        "p": test.p,
        "t": test.t,
        "se": test.se,
        "df": test.df,
        "welch_low": test.low,
        "welch_high": test.high,
        "p_permutation": design.permuted(table, method, baseline),
        "p_new_games": t_test(boot.difference, boot.se, boot.df),
    }
    if design.name == "blocked":
        row |= {"p_pooled": tested.p_pooled, "contrast_correlation": tested.correlation}
    if margin is not None:
        row["margin"] = margin
        on_these, on_new = (
            error_at_margin(design, table, method, baseline, se, margin) for se in (test.se, boot.se)
        )
        row["p_equivalent"] = equivalence(test.difference, on_these, test.df, margin)
        row["p_equivalent_new_games"] = equivalence(boot.difference, on_new, boot.df, margin)
    return row


def _as_pairs(records: Records, table: Cells, question: Question, method: str) -> dict[str, Any]:
    """How alike the pairs of the two methods end, and what the other design would have shown; empty where
    fewer than two runs are pairs."""
    baseline, level = question.against, question.level
    a, b = real_pairs(records, table, method, baseline)
    if len(a) < 2:
        return {}
    means = table.run_means()
    alike = correlation(means[a], means[b], level)
    other = design_of(OTHER[question.design])
    test = other.test(table, method, baseline, level).test
    return {
        "pairs": len(a),
        "paired_by": paired_by(records, table, np.concatenate([a, b])),
        "pair_correlation": alike.value,
        "pair_correlation_low": alike.low,
        "pair_correlation_high": alike.high,
        "other_design": other.name,
        "p_other": test.p,
        "detectable_other": detectable(test.se, test.df, 1 - level),
    }


def _checkpoints(table: Cells, mine: np.ndarray, base: np.ndarray, question: Question) -> dict[str, Any]:
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
    return empty | _mcnemar(table.values[mine[0]], table.values[base[0]], question.metric, question.level)


def _mcnemar(a: np.ndarray, b: np.ndarray, metric: str, level: float) -> dict[str, Any]:
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if metric != "won" or not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        return {"test": "none: McNemar needs one won/lost result a game"}
    both, only_a, only_b = int((a * b).sum()), int((a * (1 - b)).sum()), int((b * (1 - a)).sum())
    low, high = newcombe_paired(both, only_a, only_b, len(a) - both - only_a - only_b, level)
    return {"test": "McNemar, exact", "p": mcnemar(only_a, only_b), "low": low, "high": high}


def seed_pairs(records: Records, question: Question) -> pd.DataFrame:
    """The means of the runs that share a seed with one of the baseline: a row for each pair and place."""
    baseline, rows = question.against, []
    for group in each_place(select(records, question), question.average):
        table = cells(group, question.metric, question.average)
        means = table.run_means()
        place = {"env": table.env, "source": table.source, "split": table.split}
        for method in sorted(set(table.methods) - {baseline}):
            for mine, theirs in zip(*real_pairs(records, table, method, baseline), strict=True):
                row = {"method": method, "baseline": baseline, "seed": table.seeds[mine]}
                row |= {"mean": means[mine], "mean_baseline": means[theirs]}
                rows.append(place | row | {"difference": means[mine] - means[theirs]})
    return pd.DataFrame(rows)


def checkpoints(records: Records, question: Question) -> pd.DataFrame:
    """Every pair of single checkpoints with the same seed: McNemar and Newcombe's paired interval.

    Exploratory by nature: each row speaks of two checkpoints. Pooling these games over runs rejects a true
    null of the recipe too often (docs/evidence/coverage.md, "McNemar pooled"), so nothing here is pooled.
    """
    baseline, rows = question.against, []
    for group in each_split(select(records, question)):
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
                    **_mcnemar(table.values[row], table.values[partner], "won", question.level),
                }
            )
    return pd.DataFrame(rows)

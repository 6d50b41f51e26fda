"""A sweep over one setting: its objective, how much the winner flatters itself, and the confirmation on
fresh seeds.

The best of many settings looks better than it is, because the maximum also picks lucky noise (best of 20
equal thresholds on one seed: +9.8 points). The bias is estimated by bootstrap: in each draw of runs and
games the winner is chosen again, and its score there is compared with the score of that same setting in the
original data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.bootstrap import resampled_run_means
from analysis.cells import Cells, cells, each_split, weighted_means
from analysis.check import select
from analysis.compare import compare
from analysis.errors import Refusal
from analysis.intervals import t_interval
from analysis.question import EVERYTHING, Question
from analysis.records import Records

DRAWS = 4000


def sweep(records: Records, key: str, question: Question = EVERYTHING) -> pd.DataFrame:
    """One row per setting of `key`, env and split: mean, Student's interval over runs, `best`, and for the
    best one `selection_bias` (to be subtracted) and `corrected`. Load with `vary=[key]` first.

    `resampled` says what the bias knows: runs and games, or games alone where a setting has one run (then
    the spread over training runs is missing and the bias is too small).
    """
    episodes = select(records, question)
    if key not in episodes:
        raise Refusal(
            f"The episodes have no setting {key!r}; load the records with vary=[{key!r}] (--vary {key})."
        )
    episodes = episodes[episodes[key].notna()]
    rows = []
    for group in each_split(episodes):
        table = cells(group, question.metric)
        value_of = group.drop_duplicates("method").set_index("method")[key]
        rows += _split_rows(table, value_of, key, question)
    if not rows:
        raise Refusal(f"No run has a value for {key}.")
    return pd.DataFrame(rows)


def _split_rows(table: Cells, value_of: pd.Series, key: str, question: Question) -> list[dict[str, Any]]:
    methods = sorted(
        set(table.methods), key=lambda method: (str(method).split("[")[0], _sortable(value_of[method]))
    )
    if len(methods) < 2:
        raise Refusal(f"{key} has one value on {table.env} {table.split}; a sweep needs at least two.")
    means = table.run_means()
    members = [table.rows(method) for method in methods]
    scores = np.array([means[rows].mean() for rows in members])
    best = int(np.argmax(scores))
    draws = question.draws or DRAWS
    bias, chosen = selection_bias(table.values, members, table.strata, table.weights, draws, question.seed)
    everywhere = all(len(rows) > 1 for rows in members)
    result = []
    for i, (method, rows) in enumerate(zip(methods, members, strict=True)):
        low, high = t_interval(table.sample_of(rows), question.level)
        result.append(
            {
                "env": table.env,
                "source": table.source,
                "split": table.split,
                "method": method,
                key: value_of[method],
                "runs": len(rows),
                "games": len(table.games),
                "mean": float(scores[i]),
                "low": low,
                "high": high,
                "best": i == best,
                "chosen_in_draws": float(chosen[i]),
                "selection_bias": bias if i == best else np.nan,
                "corrected": float(scores[i]) - bias if i == best else np.nan,
                "resampled": "runs and games" if everywhere else "games alone: some setting has one run",
            }
        )
    return result


def selection_bias(
    values: np.ndarray,
    members: Sequence[np.ndarray],
    strata: np.ndarray,
    weights: np.ndarray,
    draws: int,
    seed: int = 0,
) -> tuple[float, np.ndarray]:
    """How much choosing the best setting adds to its score, and how often each setting is chosen in the
    draws.

    `values` is [runs, games]; `members[i]` are the rows of setting i.
    """
    rng = np.random.default_rng(seed)
    means = weighted_means(values, weights)
    scores = np.array([means[rows].mean() for rows in members])
    drawn_runs = resampled_run_means(values, strata, weights, draws, rng)
    # Resampling n runs keeps (n−1)/n of their variance; spreading the runs first makes up for it.
    drawn = np.empty((draws, len(members)))
    for i, rows in enumerate(members):
        n = len(rows)
        if n > 1:
            centre = means[rows].mean()
            spread = (means[rows] - centre) * (np.sqrt(n / (n - 1)) - 1)
            picked = rng.integers(0, n, (draws, n))
            drawn[:, i] = np.take_along_axis(drawn_runs[:, rows] + spread, picked, axis=1).mean(axis=1)
        else:
            drawn[:, i] = drawn_runs[:, rows[0]]
    winner = drawn.argmax(axis=1)
    bias = float((drawn[np.arange(draws), winner] - scores[winner]).mean())
    return bias, np.bincount(winner, minlength=len(members)) / draws


def _sortable(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, (int, float, np.number)) else (1, 0.0, str(value))


def confirmation(swept: Records, fresh: Records, key: str, question: Question) -> pd.DataFrame:
    """The sweep's winner against the baseline on runs that took no part in the selection.

    Refuses runs whose seed or whose games the sweep has used: only fresh ones can confirm. `fresh` is loaded
    with the same `vary`; a split in the question is the one that selected. `sweep_mean` and `shrinkage` show
    what the selection had promised.
    """
    selected = sweep(swept, key, replace(question, baseline=None, draws=None))
    if len(selected[["env", "split"]].drop_duplicates()) != 1:
        raise Refusal(
            "The sweep was evaluated on more than one split; name the one that selected with --split."
        )
    best = selected[selected["best"]].iloc[0]
    question = replace(question, split=None)
    episodes = select(fresh, question)
    seeds = set(swept.runs["seed"]) & set(fresh.runs.loc[fresh.runs["used"].astype(bool), "seed"])
    if seeds:
        raise Refusal(f"Seed {min(seeds)} took part in the sweep; a confirmation needs fresh seeds.")
    shared = set(select(swept)["task"]) & set(episodes["task"])
    if shared:
        raise Refusal(
            f"{len(shared)} games took part in the sweep (first: {min(shared)}); use held-out games."
        )
    if best["method"] not in set(episodes["method"]):
        raise Refusal(f"The sweep's winner {best['method']} has no fresh run.")
    frame = compare(fresh, replace(question, methods=(best["method"], question.against)))
    frame["sweep_mean"] = float(best["mean"])
    frame["sweep_corrected"] = float(best["corrected"])
    frame["shrinkage"] = float(best["mean"]) - frame["mean"]
    return frame

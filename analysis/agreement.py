"""Does the judge see what the environment's expert sees? And is the teacher's confidence worth anything?

Truth of a turn: the oracle's `progress`, `no_effect` or `harm`, for which SKIP, WEAK and STRONG are the
right labels. Two scopes: `judge` has the turns on which the teacher was asked and answered; `rule` adds the
deterministic failures (counted as STRONG) and unusable replies (FALLBACK, counted as STRONG), that is, all
the rule decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.check import of_place
from analysis.clusters import (
    TURN_EDGES,
    bins_of,
    bounds,
    cluster_codes,
    cluster_sums,
    clustered_rate,
    resampled_sums,
)
from analysis.errors import Refusal
from analysis.intervals import t_interval
from analysis.question import EVERYTHING, Question
from analysis.records import Records

DRAWS = 2000
LABELS = ("SKIP", "WEAK", "STRONG")
RIGHT_LABEL = {"progress": "SKIP", "no_effect": "WEAK", "harm": "STRONG"}
FORCED = {"DET_FAIL": "STRONG", "FALLBACK": "STRONG"}
BINS = 10
"""Equal-width bins of confidence in which it is held against the share of right labels."""
CONFIDENCE_BINS = 128
"""Quantile bins of confidence in which draws of the AUROC are computed; the estimate itself uses the exact
values."""

Measures = dict[str, np.ndarray]


def labelled(records: Records, scope: str = "judge", question: Question = EVERYTHING) -> pd.DataFrame:
    """Training turns with a decision and an oracle verdict, with columns `decided`, `truth` and
    `turn_bin`."""
    turns = filtered(records, question)
    decided = turns["label"].where(turns["label"].isin(LABELS))
    if scope == "rule":
        decided = decided.fillna(turns["label"].map(FORCED))
    elif scope != "judge":
        raise Refusal(f"scope is judge or rule, not {scope}.")
    truth = turns["oracle"].map(RIGHT_LABEL)
    keep = decided.notna() & truth.notna()
    if not keep.any():
        raise Refusal(
            "No turn has both a judge's label and an oracle's verdict: the method asks no judge, or the "
            "environment has no expert."
        )
    return turns[keep].assign(
        decided=decided[keep], truth=truth[keep], turn_bin=bins_of(turns.loc[keep, "turn"], TURN_EDGES)
    )


def filtered(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """Training turns of finished runs, of the environment, split, source and methods of the question."""
    turns = records.turns
    if not len(turns):
        raise Refusal(
            "These records hold no turns; labels need the turns table of run directories or MLflow runs."
        )
    return turns[(turns["phase"] == "train").to_numpy() & of_place(turns, question)]


def confusion(turns: pd.DataFrame) -> pd.DataFrame:
    """Counts, decided label (rows) against the right one (columns), per method and env."""
    table = (
        turns.groupby(["method", "env", "decided", "truth"], observed=True)
        .size()
        .unstack("truth", fill_value=0)
        .reindex(columns=list(LABELS), fill_value=0)
        .reset_index()
    )
    table["decided"] = pd.Categorical(table["decided"], LABELS, ordered=True)
    table = table.sort_values(["method", "env", "decided"]).reset_index(drop=True)
    table["decided"] = table["decided"].astype(str)
    return table.rename(columns={label: f"right_{label}" for label in LABELS}).rename_axis(columns=None)


def from_confusion(cells: np.ndarray) -> Measures:
    """Measures from confusion counts [..., 9], row-major decided × truth. All are arrays of shape [...].

    `kappa` (Cohen 1960) and `kappa_linear` (linear weights) over three labels; `mcc` over three labels
    (Gorodkin 2004); `kappa_intervening` of WEAK or STRONG against SKIP, which does not ask how strongly;
    `sensitivity` and `specificity` of intervening at all (WEAK or STRONG) for turns that made no progress.
    """
    table = np.asarray(cells, float).reshape(*np.shape(cells)[:-1], 3, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = table.sum(axis=(-2, -1))
        rows, columns = table.sum(axis=-1), table.sum(axis=-2)
        observed = np.trace(table, axis1=-2, axis2=-1) / n
        expected = (rows * columns).sum(axis=-1) / n**2
        distance = np.abs(np.arange(3)[:, None] - np.arange(3)[None, :])
        weighted = (table * distance).sum(axis=(-2, -1)) / n
        chance = (rows[..., :, None] * columns[..., None, :] * distance).sum(axis=(-2, -1)) / n**2
        covariance = observed * n**2 - (rows * columns).sum(axis=-1)
        scale = np.sqrt((n**2 - (rows**2).sum(axis=-1)) * (n**2 - (columns**2).sum(axis=-1)))
        bad = columns[..., 1] + columns[..., 2]
        caught = table[..., 1:, 1:].sum(axis=(-2, -1))
        asked = rows[..., 1] + rows[..., 2]
        alike = (table[..., 0, 0] + caught) / n
        by_chance = (rows[..., 0] * columns[..., 0] + asked * bad) / n**2
        return {
            "agreement": observed,
            "kappa": (observed - expected) / (1 - expected),
            "kappa_linear": 1 - weighted / chance,
            "kappa_intervening": (alike - by_chance) / (1 - by_chance),
            "mcc": covariance / scale,
            "sensitivity": caught / bad,
            "specificity": table[..., 0, 0] / columns[..., 0],
            "prevalence": bad / n,
            "intervened": asked / n,
        }


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney); nan where one class is empty."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _auroc_of_counts(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """AUROC [draws] from counts per ascending score bin [draws, bins]."""
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (positive * (below + 0.5 * negative)).sum(axis=1)
        return area / (positive.sum(axis=1) * negative.sum(axis=1))


def measures(
    turns: pd.DataFrame, level: float = 0.95, draws: int = 2000, cluster: str = "episode", seed: int = 0
) -> dict[str, Any]:
    """All agreement measures of one set of labelled turns, each with `_low` and `_high`: clustered rates by
    Wilson at their effective number, everything else by cluster bootstrap."""
    rng = np.random.default_rng(seed)
    codes = cluster_codes(turns, cluster)
    index = {label: i for i, label in enumerate(LABELS)}
    cell = turns["decided"].map(index).to_numpy(int) * 3 + turns["truth"].map(index).to_numpy(int)
    columns = [np.eye(9)[cell]]
    right = (turns["decided"] == turns["truth"]).to_numpy()
    bad = (turns["truth"] != "SKIP").to_numpy()
    confidence = turns["confidence"].to_numpy(float, na_value=np.nan)
    known = ~np.isnan(confidence)
    forecasts = len(np.unique(confidence[known])) > 1
    if forecasts:
        edges = np.unique(np.quantile(confidence[known], np.linspace(0, 1, CONFIDENCE_BINS + 1)[1:-1]))
        spot = np.eye(len(edges) + 1)[np.searchsorted(edges, confidence, side="right")] * known[:, None]
        columns += [spot * right[:, None], spot * ~right[:, None], spot * bad[:, None], spot * ~bad[:, None]]
        columns += [np.stack([known, np.where(known, (confidence - right) ** 2, 0.0)], axis=1)]
    sums = cluster_sums(codes, np.concatenate(columns, axis=1))
    point = {name: float(value) for name, value in from_confusion(sums[:, :9].sum(axis=0)).items()}
    resampled = resampled_sums(sums, draws, rng)
    drawn = from_confusion(resampled[:, :9])
    if forecasts:
        parts = np.split(resampled[:, 9:-2], 4, axis=1)
        point["auroc_confidence_right"] = auroc(confidence[known], right[known])
        drawn["auroc_confidence_right"] = _auroc_of_counts(parts[0], parts[1])
        point["auroc_doubt_bad_turn"] = auroc(-confidence[known], bad[known])
        drawn["auroc_doubt_bad_turn"] = 1 - _auroc_of_counts(parts[2], parts[3])
        point["brier"] = float(np.mean((confidence[known] - right[known]) ** 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn["brier"] = resampled[:, -1] / resampled[:, -2]
        point["calibration_error"] = calibration_error(confidence[known], right[known])
    asked = (turns["decided"] != "SKIP").to_numpy()
    rates = {
        "agreement": (right, np.ones(len(turns), bool)),
        "sensitivity": (asked, bad),
        "specificity": (~asked, ~bad),
        "intervened": (asked, np.ones(len(turns), bool)),
    }
    row: dict[str, Any] = {"turns": len(turns), "clusters": len(sums)}
    if forecasts:
        row["turns_with_confidence"] = int(known.sum())
    for name, value in point.items():
        row[name] = value
        if name in rates:
            hits, among = rates[name]
            row[f"{name}_low"], row[f"{name}_high"] = clustered_rate(hits[among], codes[among], level)
        elif name in drawn and name != "prevalence":
            row[f"{name}_low"], row[f"{name}_high"] = bounds(drawn[name], level, len(sums))
    return row


def over_runs(turns: pd.DataFrame, level: float = 0.95) -> dict[str, float]:
    """Kappa of each training run: their number, sd and Student's interval. It speaks of the recipe, where the
    bootstrap over episodes speaks of the judge in these runs."""
    index = {label: i for i, label in enumerate(LABELS)}
    cell = turns["decided"].map(index).to_numpy(int) * 3 + turns["truth"].map(index).to_numpy(int)
    counts = cluster_sums(cluster_codes(turns, "run"), np.eye(9)[cell])
    kappas = from_confusion(counts)["kappa"]
    low, high = t_interval(kappas, level)
    spread = float(kappas.std(ddof=1)) if len(kappas) > 1 else float("nan")
    return {"runs": len(kappas), "kappa_sd_runs": spread, "kappa_runs_low": low, "kappa_runs_high": high}


def reliability(turns: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Per method, env and equal-width bin of confidence: turns, mean confidence, share of right labels.

    The interval is that of a clustered rate. A confidence that never varies is no forecast and gives no row.
    """
    rows = []
    for (method, env), mine in turns[turns["confidence"].notna()].groupby(["method", "env"], sort=True):
        if mine["confidence"].nunique() < 2:
            continue
        spot = np.minimum((mine["confidence"].to_numpy(float) * BINS).astype(int), BINS - 1)
        for number, part in mine.groupby(spot, sort=True):
            right = (part["decided"] == part["truth"]).to_numpy(float)
            low, high = clustered_rate(right, cluster_codes(part), level)
            rows.append(
                {
                    "method": method,
                    "env": env,
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "turns": len(part),
                    "confidence": float(part["confidence"].mean()),
                    "right": float(right.mean()),
                    "low": low,
                    "high": high,
                }
            )
    columns = ["method", "env", "from", "to", "turns", "confidence", "right", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error with equal-width bins (Naeini et al. 2015), confidence as P(label is
    right). It has no interval: of a well calibrated judge it can only err upwards."""
    spot = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(spot, minlength=BINS)
    gap = np.bincount(spot, confidence, minlength=BINS) - np.bincount(spot, right, minlength=BINS)
    return float(np.abs(gap)[count > 0].sum() / len(confidence))


GROUPS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "all": lambda turns: pd.Series("all", index=turns.index),
    "task type": lambda turns: turns["task_type"].astype(str),
    "turn position": lambda turns: turns["turn_bin"],
    "failure kind": lambda turns: turns["failure"].astype(str),
}


def agreement(records: Records, question: Question = EVERYTHING, cluster: str = "episode") -> pd.DataFrame:
    """One row per method, env, scope and group (all, task type, turn position; failure kind for the rule).

    Kappa falls with prevalence at equal error rates, so the prevalence of turns without progress stands
    beside it.
    """
    rows, level, draws = [], question.level, question.draws or DRAWS
    for scope in ("judge", "rule"):
        turns = labelled(records, scope, question)
        for (method, env), part in turns.groupby(["method", "env"], sort=True):
            for by, key in GROUPS.items():
                if (by == "failure kind") != (scope == "rule") and by != "all":
                    continue
                for value, group in part.groupby(key(part), sort=True, observed=True):
                    place = {"method": method, "env": env, "scope": scope, "by": by, "group": str(value)}
                    row = place | measures(group, level, draws, cluster, question.seed)
                    rows.append(row | (over_runs(group, level) if by == "all" else {}))
    return pd.DataFrame(rows)


def judge_against_judge(
    first: pd.DataFrame, second: pd.DataFrame, question: Question = EVERYTHING
) -> pd.DataFrame:
    """Two judges on the same turns (same seed, step, game, turn, observation and answer), one row per env:
    measures with the second as the truth.

    Sensitivity and specificity then read: how often the first intervenes where the second does, or does not.
    """
    key = ["env", "source", "split", "step", "seed", "task", "rollout", "turn", "observation", "answer"]
    both = first[first["label"].isin(LABELS)].merge(
        second.loc[second["label"].isin(LABELS), [*key, "label"]].drop_duplicates(key),
        on=key,
        suffixes=("", "_second"),
    )
    if not len(both):
        raise Refusal(
            "The two record sets share no judged turn (same seed, step, game, turn, observation and answer)."
        )
    both = both.assign(decided=both["label"], truth=both["label_second"], confidence=np.nan)
    draws = question.draws or DRAWS
    rows = [
        {
            "env": env,
            "shared_turns": len(part),
            **measures(part, question.level, draws, "episode", question.seed),
        }
        for env, part in both.groupby("env", sort=True, observed=True)
    ]
    return pd.DataFrame(rows)


def label_shares(records: Records, question: Question = EVERYTHING) -> dict[str, pd.DataFrame]:
    """Shares of each label over training steps and over turn positions, per method and env."""
    turns = filtered(records, question)
    turns = turns[turns["label"].notna()].assign(turn_bin=lambda frame: bins_of(frame["turn"], TURN_EDGES))
    result = {}
    for name, column in (("labels_by_step", "step"), ("labels_by_turn", "turn_bin")):
        counts = (
            turns.groupby(["method", "env", column, "label"], observed=True)
            .size()
            .unstack("label", fill_value=0)
        )
        shares = counts.div(counts.sum(axis=1), axis=0)
        shares.insert(0, "turns", counts.sum(axis=1))
        result[name] = shares.reset_index().rename_axis(columns=None)
    return result


def tables(
    records: Records, question: Question = EVERYTHING, cluster: str = "episode"
) -> dict[str, pd.DataFrame]:
    """`agreement`, `confusion` (rule scope), `reliability` and the label shares."""
    turns = labelled(records, "judge", question)
    return {
        "agreement": agreement(records, question, cluster),
        "confusion": confusion(labelled(records, "rule", question)),
        "reliability": reliability(turns, question.level),
        **label_shares(records, question),
    }

"""The turns that the rule skipped: which should not have been, what they are like, and what came after them.

A label never acts inside its own episode: the student played the whole trajectory before any turn was
judged. So what follows a wrongly skipped turn shows how costly the errors are that the judge lets pass,
against errors that it caught; it is no effect of the skipping. Effects of skipping on training are compared
between runs (`compare`,
`controls`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from analysis.agreement import filtered
from analysis.clusters import (
    DISTANCE_EDGES,
    LENGTH_EDGES,
    TURN_EDGES,
    bins_of,
    bounds,
    cluster_codes,
    cluster_sums,
    clustered_rate,
    resampled_sums,
)
from analysis.errors import Refusal
from analysis.question import EVERYTHING, Question
from analysis.records import Records

EPISODE = ["run", "phase", "step", "split", "task", "rollout"]
COVARIATES = {
    "expert_distance_before": "steps to the goal before the turn",
    "turn": "turn position",
    "episode_turns": "turns of the episode",
    "answer_tokens": "student tokens",
    "confidence": "c_t",
    "teacher_entropy": "nats",
    "student_entropy": "nats",
    "student_logprob": "nats per token",
    "divergence": "nats per token",
}
DRAWS = 2000
HORIZON = 3
"""Turns after a skipped one that are looked at."""
MIN_PROPENSITY = 0.01
MIN_EFFECTIVE = 30
"""Fewer effectively independent turns than this per label, and the weighted estimates are refused."""


def decided_turns(records: Records, horizon: int = HORIZON, question: Question = EVERYTHING) -> pd.DataFrame:
    """Labelled training turns of the methods that skip, with bins, `supervised`, and the progress of the
    `horizon` turns that follow."""
    turns = filtered(records, question)
    turns = (
        turns[turns["label"].notna()].sort_values([*EPISODE, "turn"], kind="stable").reset_index(drop=True)
    )
    skips = turns["label"].eq("SKIP").groupby([turns["method"], turns["env"]]).transform("any")
    turns = turns[skips].reset_index(drop=True)
    if not len(turns):
        raise Refusal("No turn was skipped in these records: there is nothing to analyse.")
    episode = turns.groupby(EPISODE, sort=False, observed=True, dropna=False).ngroup().to_numpy()
    length = np.bincount(episode)
    first = np.concatenate([[0], np.cumsum(length)[:-1]])
    last = first + length - 1
    row = np.arange(len(turns))
    ahead = np.minimum(row + horizon, last[episode])
    after = turns["expert_distance_after"].to_numpy(float, na_value=np.nan)
    turns["episode"] = episode
    turns["episode_turns"] = length[episode]
    turns["supervised"] = turns["weight"].to_numpy(float) > 0
    # Steps nearer to the goal in the turns that follow; the last turn of an episode has none and is left out.
    turns["progress_after"] = np.where(ahead > row, after - after[ahead], np.nan)
    turns["turn_bin"] = bins_of(turns["turn"], TURN_EDGES)
    turns["distance_bin"] = bins_of(turns["expert_distance_before"], DISTANCE_EDGES)
    turns["length_bin"] = bins_of(turns["episode_turns"], LENGTH_EDGES)
    return turns


BY = {
    "all": None,
    "expert distance": "distance_bin",
    "trajectory length": "length_bin",
    "turn position": "turn_bin",
    "error type": "failure",
    "task type": "task_type",
}


ERRORS = {
    "skipped_harm": ("harm", True),
    "skipped_no_effect": ("no_effect", True),
    "supervised_progress": ("progress", False),
}
"""Wrong decisions: among turns with this verdict, those that were skipped (or not)."""


def errors(turns: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Wrong decisions, by each of `BY`: in all, by difficulty, length, position, error type and task type.

    `skipped_harm` is the share of harmful turns that were skipped, `skipped_no_effect` that of turns without
    effect, `supervised_progress` the share of good turns that were supervised all the same. Intervals are
    those of rates clustered in episodes.
    """
    known = turns[turns["oracle"].notna()]
    if not len(known):
        raise Refusal("No labelled turn has an oracle verdict, so no decision can be called wrong.")
    skipped = ~known["supervised"].to_numpy(bool)
    oracle = known["oracle"].to_numpy(object)
    rows = []
    place = known.groupby(["method", "env"], sort=True, observed=True).ngroup().to_numpy()
    for number in range(int(place.max()) + 1):
        mine = place == number
        first = known.iloc[int(np.argmax(mine))]
        for grouping, column in BY.items():
            values = (
                known[column].astype(str).to_numpy(object) if column else np.full(len(known), "all", object)
            )
            order = list(known[column].cat.categories) if column and column.endswith("_bin") else None
            found = set(values[mine])
            for value in [v for v in order if v in found] if order else sorted(found):
                inside = mine & (values == value)
                codes = cluster_codes(known[inside])
                row: dict[str, Any] = {
                    "method": first["method"],
                    "env": first["env"],
                    "by": grouping,
                    "group": value,
                    "turns": int(inside.sum()),
                    "episodes": int(codes.max()) + 1,
                }
                for name, (verdict, skipping) in ERRORS.items():
                    among = oracle[inside] == verdict
                    hits = (skipped[inside] == skipping)[among]
                    row[name] = float(hits.mean()) if among.any() else np.nan
                    row[f"{name}_of"] = int(among.sum())
                    row[f"{name}_low"], row[f"{name}_high"] = clustered_rate(hits, codes[among], level)
                rows.append(row)
    return pd.DataFrame(rows)


def differences(turns: pd.DataFrame, question: Question = EVERYTHING) -> pd.DataFrame:
    """Standardised mean differences, supervised minus skipped, over the root mean of the two variances
    (Austin 2009).

    |0.1| is the customary line below which two groups count as alike in a covariate.
    """
    rows, draws = [], question.draws or DRAWS
    for (method, env), group in turns.groupby(["method", "env"], sort=True, observed=True):
        for name, unit in COVARIATES.items():
            if name not in group:
                continue
            value = pd.to_numeric(group[name]).to_numpy(float, na_value=np.nan)
            known = ~np.isnan(value)
            supervised = group["supervised"].to_numpy(bool)[known]
            value = value[known]
            if supervised.sum() < 2 or (~supervised).sum() < 2:
                continue
            # Centred first: the variance from sums of squares would lose its digits otherwise.
            centred = value - value.mean()
            parts = []
            for side in (supervised, ~supervised):
                parts += [side, side * centred, side * centred**2]
            sums = cluster_sums(cluster_codes(group[known]), np.stack(parts, axis=1).astype(float))
            drawn = _standardised(resampled_sums(sums, draws, np.random.default_rng(question.seed)))
            # The scarcer kind decides whether there are enough episodes for an interval.
            low, high = bounds(drawn, question.level, int((sums[:, (0, 3)] > 0).sum(axis=0).min()))
            rows.append(
                {
                    "method": method,
                    "env": env,
                    "covariate": name,
                    "supervised": float(value[supervised].mean()),
                    "skipped": float(value[~supervised].mean()),
                    "standardised_difference": float(_standardised(sums.sum(axis=0, keepdims=True))[0]),
                    "low": low,
                    "high": high,
                    "unit": unit,
                }
            )
    return pd.DataFrame(rows)


def _standardised(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        n1, s1, q1, n0, s0, q0 = sums.T
        m1, m0 = s1 / n1, s0 / n0
        v1, v0 = (q1 - n1 * m1**2) / (n1 - 1), (q0 - n0 * m0**2) / (n0 - 1)
        return (m1 - m0) / np.sqrt((v1 + v0) / 2)


def aftermath(turns: pd.DataFrame, question: Question = EVERYTHING, horizon: int = HORIZON) -> pd.DataFrame:
    """Progress in the turns after a wrongly skipped turn, against supervised turns that match it.

    Per method and env, matched exactly on task type, oracle verdict, turn position and expert distance (both
    in bins); strata without both kinds are left out and counted. `difference` is averaged with the skipped
    turns' weights; unit: expert steps.
    """
    wrong = turns[turns["oracle"].isin(["harm", "no_effect"]) & turns["progress_after"].notna()]
    rows, draws = [], question.draws or DRAWS
    for (method, env), group in wrong.groupby(["method", "env"], sort=True, observed=True):
        keys = ["task_type", "oracle", "turn_bin", "distance_bin"]
        stratum = group.groupby(keys, sort=False, observed=True, dropna=False).ngroup().to_numpy()
        supervised = group["supervised"].to_numpy(bool)
        value = group["progress_after"].to_numpy(float)
        size = int(stratum.max()) + 1
        both = (np.bincount(stratum, supervised, size) > 0) & (np.bincount(stratum, ~supervised, size) > 0)
        inside = both[stratum]
        row: dict[str, Any] = {
            "method": method,
            "env": env,
            "horizon": horizon,
            "skipped_wrongly": int((~supervised).sum()),
            "matched": int((~supervised & inside).sum()),
            "strata": int(both.sum()),
        }
        if not inside.any():
            rows.append(
                row
                | {
                    "after_skipped": np.nan,
                    "after_supervised": np.nan,
                    "difference": np.nan,
                    "low": np.nan,
                    "high": np.nan,
                }
            )
            continue
        stratum, supervised, value = stratum[inside], supervised[inside], value[inside]
        codes = cluster_codes(group[inside])
        columns = [
            sparse.csr_matrix((part, (codes, stratum)), shape=(int(codes.max()) + 1, size))
            for part in (~supervised * 1.0, ~supervised * value, supervised * 1.0, supervised * value)
        ]
        sums = sparse.hstack(columns).tocsr()
        point = _matched(np.asarray(sums.sum(axis=0)), size)
        drawn = _matched(_resampled_sparse(sums, draws, np.random.default_rng(question.seed)), size)
        scarcer = min(len(np.unique(codes[kind])) for kind in (supervised, ~supervised))
        low, high = bounds(drawn[0] - drawn[1], question.level, scarcer)
        row |= {
            "after_skipped": float(point[0][0]),
            "after_supervised": float(point[1][0]),
            "difference": float(point[0][0] - point[1][0]),
            "low": low,
            "high": high,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _resampled_sparse(sums: Any, draws: int, rng: np.random.Generator) -> np.ndarray:
    clusters = sums.shape[0]
    picked = rng.integers(0, clusters, (draws, clusters))
    rows = np.repeat(np.arange(draws), clusters)
    weights = sparse.csr_matrix((np.ones(picked.size), (rows, picked.ravel())), shape=(draws, clusters))
    return (weights @ sums).toarray()


def _matched(sums: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of both kinds under the skipped turns' stratum weights, strata without both left out."""
    n_skipped, s_skipped, n_other, s_other = np.split(sums, [size, 2 * size, 3 * size], axis=1)
    usable = (n_skipped > 0) & (n_other > 0)
    weight = np.where(usable, n_skipped, 0.0)
    total = weight.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        skipped = np.where(usable, s_skipped, 0.0).sum(axis=1) / total
        other = (weight * np.where(usable, s_other / np.where(n_other > 0, n_other, 1), 0.0)).sum(
            axis=1
        ) / total
    return skipped, other


def weighted(
    turns: pd.DataFrame, outcome: str = "progress_after", question: Question = EVERYTHING
) -> pd.DataFrame:
    """Mean outcome over all judged turns, estimated from the turns of each label alone, by logged
    propensities.

    Plain mean, SNIPS (Swaminathan and Joachims 2015) and AIPW with a linear outcome model fitted in two
    folds of episodes. With correct propensities SNIPS and AIPW agree between labels for anything that
    happened before the labels were drawn; a difference says that the logged propensities are wrong. Refused
    labels carry a reason.
    """
    rows = []
    for (method, env), group in turns.groupby(["method", "env"], sort=True, observed=True):
        group = group[group["label"].isin(["SKIP", "WEAK", "STRONG"]) & group[outcome].notna()]
        reason = _no_overlap(group)
        for label in ("SKIP", "WEAK", "STRONG"):
            row: dict[str, Any] = {"method": method, "env": env, "outcome": outcome, "label": label}
            row["refused"] = reason
            chosen = (group["label"] == label).to_numpy()
            row["turns"] = int(chosen.sum())
            propensity = group["propensity"].to_numpy(float)
            weights = np.where(chosen, 1 / np.maximum(propensity, 1e-12), 0.0)
            effective = weights.sum() ** 2 / max((weights**2).sum(), 1e-12)
            row["effective_turns"] = float(effective) if chosen.any() else 0.0
            if not reason and effective < MIN_EFFECTIVE:
                row["refused"] = f"only {effective:.0f} effective turns; {MIN_EFFECTIVE} are needed"
            if row["refused"]:
                rows.append(row)
                continue
            rows.append(row | _estimates(group, chosen, weights, outcome, question))
    return pd.DataFrame(rows)


def _no_overlap(group: pd.DataFrame) -> str:
    propensity = group["propensity"].to_numpy(float, na_value=np.nan)
    if not len(group):
        return "no judged turn with this outcome"
    if np.isnan(propensity).any():
        return "propensities were not logged for every turn"
    if (propensity >= 1 - 1e-9).all():
        return (
            "no overlap: the rule is deterministic (every propensity is 1), so no weighting can undo its "
            "selection; use an ε-randomised rule"
        )
    if propensity.min() < MIN_PROPENSITY:
        return f"no overlap: the smallest propensity is {propensity.min():.4f}, below {MIN_PROPENSITY}"
    return ""


def _estimates(
    group: pd.DataFrame,
    chosen: np.ndarray,
    weights: np.ndarray,
    outcome: str,
    question: Question,
) -> dict[str, Any]:
    value = group[outcome].to_numpy(float)
    names = [
        name for name in ("expert_distance_before", "turn", "answer_tokens") if group[name].notna().all()
    ]
    design = np.column_stack([np.ones(len(group)), *(group[name].to_numpy(float) for name in names)])
    codes = cluster_codes(group)
    predicted = np.empty(len(group))
    for fold in (0, 1):
        train = chosen & (codes % 2 != fold)
        beta = (
            np.linalg.lstsq(design[train], value[train], rcond=None)[0]
            if train.sum() > design.shape[1]
            else None
        )
        held = codes % 2 == fold
        predicted[held] = design[held] @ beta if beta is not None else value[chosen].mean()
    augmented = predicted + weights * (value - predicted)
    columns = np.stack(
        [chosen, chosen * value, weights, weights * value, np.ones(len(group)), augmented], axis=1
    )
    sums = cluster_sums(codes, columns.astype(float))
    drawn = resampled_sums(sums, question.draws or DRAWS, np.random.default_rng(question.seed))
    total = sums.sum(axis=0)
    row: dict[str, Any] = {}
    for i, name in enumerate(("plain", "snips", "aipw")):
        row[name] = float(total[2 * i + 1] / total[2 * i])
        with np.errstate(invalid="ignore", divide="ignore"):
            row[f"{name}_low"], row[f"{name}_high"] = bounds(
                drawn[:, 2 * i + 1] / drawn[:, 2 * i], question.level, len(np.unique(codes[chosen]))
            )
    return row


def tables(
    records: Records, question: Question = EVERYTHING, horizon: int = HORIZON
) -> dict[str, pd.DataFrame]:
    """`errors`, `differences`, `aftermath` and `weighted`."""
    turns = decided_turns(records, horizon, question)
    return {
        "errors": errors(turns, question.level),
        "differences": differences(turns, question),
        "aftermath": aftermath(turns, question, horizon),
        "weighted": weighted(turns, "progress_after", question),
    }

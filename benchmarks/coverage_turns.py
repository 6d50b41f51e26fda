"""Coverage of every interval over turns: agreement, calibration, skipped turns, weighted means; printed and
written into docs/evidence/coverage.md.

    nice -n 15 python benchmarks/coverage_turns.py --reps 50         # a look
    python benchmarks/coverage_turns.py --reps 500 --write docs/evidence/coverage.md

A study is 3, 5 or 10 runs of 30 training episodes of 4 to 20 turns. Episodes differ in how often the judge is
right and in how many turns go wrong; runs differ in the judge's accuracy with sd 0, 0.04 or 0.08. "These
runs" is the truth of the runs at hand, "new runs" that of the recipe. Also imported by tests/slow.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.agreement import LABELS, auroc, from_confusion, measures, over_runs, reliability
from analysis.question import Question
from analysis.records import Records
from analysis.skipped import aftermath, decided_turns, differences, errors, weighted
from benchmarks.coverage import grid, section, shares, write_block

ACCURACY = 0.75
PREVALENCE = np.array([0.6, 0.25, 0.15])
"""Shares of turns that make progress, have no effect, do harm."""
ORACLE = ("progress", "no_effect", "harm")
EPISODES = 30
EPSILON = 0.3
"""Share of labels that are redrawn uniformly, so that propensities have overlap."""


def turns_of(accuracies: np.ndarray, rng: np.random.Generator, episodes: int = EPISODES) -> pd.DataFrame:
    """Judged turns as `Records.turns` holds them; one run per accuracy."""
    runs = len(accuracies)
    accuracy = np.repeat(accuracies, episodes)
    own = rng.beta(10 * accuracy, 10 * (1 - accuracy))
    tilt = rng.beta(4, 4, runs * episodes) + 0.5
    length = rng.integers(4, 21, runs * episodes)
    episode = np.repeat(np.arange(runs * episodes), length)
    turn = np.arange(len(episode)) - np.repeat(np.cumsum(length) - length, length)
    bad = rng.random(len(episode)) < (1 - PREVALENCE[0]) * tilt[episode]
    truth = np.where(bad, np.where(rng.random(len(episode)) < PREVALENCE[1] / 0.4, 1, 2), 0)
    right = rng.random(len(episode)) < own[episode]
    meant = np.where(right, truth, (truth + rng.integers(1, 3, len(episode))) % 3)
    label = np.where(rng.random(len(episode)) < EPSILON, rng.integers(0, 3, len(episode)), meant)
    confidence = np.clip(rng.normal(np.where(label == truth, 0.8, 0.65), 0.12), 0.02, 0.98)
    step = np.where(truth == 0, -1, truth - 1)
    start = np.repeat(rng.integers(10, 16, runs * episodes), length)
    walked = np.cumsum(step)
    before_episode = np.repeat(walked[np.cumsum(length) - length] - step[np.cumsum(length) - length], length)
    after = start + walked - before_episode
    return pd.DataFrame(
        {
            "method": "m",
            "env": "e",
            "source": "s",
            "run": episode // episodes,
            "phase": pd.Categorical.from_codes(np.zeros(len(episode), int), ["train"]),
            "step": 0,
            "split": 0,
            "task": episode,
            "task_type": "t",
            "rollout": 0,
            "turn": turn,
            "oracle": np.array(ORACLE)[truth],
            "label": np.array(LABELS)[label],
            "weight": np.array([0.0, 0.5, 1.0])[label],
            "failure": "none",
            "propensity": EPSILON / 3 + (1 - EPSILON) * (label == meant),
            "confidence": confidence,
            "answer_tokens": 10 + 3 * truth + rng.integers(0, 5, len(episode)),
            "expert_distance_before": after - step,
            "expert_distance_after": after,
        }
    )


def judged(turns: pd.DataFrame) -> pd.DataFrame:
    """With the columns that the agreement measures read."""
    truth = turns["oracle"].map(dict(zip(ORACLE, LABELS, strict=True)))
    return turns.assign(decided=turns["label"], truth=truth)


def estimates(turns: pd.DataFrame, draws: int) -> pd.DataFrame:
    """One row per procedure: estimate, low, high."""
    seen = judged(turns)
    rows = {}
    row = measures(seen, draws=draws)
    for name in ("kappa", "mcc", "sensitivity", "auroc_confidence_right", "brier"):
        rows[name] = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    over = over_runs(seen)
    rows["kappa over runs"] = (row["kappa"], over["kappa_runs_low"], over["kappa_runs_high"])
    table = reliability(seen).set_index("from").loc[0.7]
    rows["reliability, one bin"] = (table["right"], table["low"], table["high"])
    nobody = pd.DataFrame({"run": [], "used": []})
    decided = decided_turns(Records(runs=nobody, episodes=pd.DataFrame(), turns=turns))
    wrong = errors(decided).iloc[0]
    rows["skipped_harm"] = tuple(wrong[f"skipped_harm{end}"] for end in ("", "_low", "_high"))
    unlike = differences(decided, Question(draws=draws)).set_index("covariate").loc["answer_tokens"]
    rows["standardised difference"] = tuple(unlike[k] for k in ("standardised_difference", "low", "high"))
    follows = aftermath(decided, question=Question(draws=draws)).iloc[0]
    rows["aftermath, difference"] = tuple(follows[k] for k in ("difference", "low", "high"))
    means = weighted(decided, question=Question(draws=draws)).set_index("label").loc["STRONG"]
    for name in ("plain", "snips", "aipw"):
        rows[f"{name} mean"] = tuple(means[f"{name}{end}"] for end in ("", "_low", "_high"))
    return pd.DataFrame(rows, index=["estimate", "low", "high"]).T.astype(float)


@cache
def simulated_truths() -> tuple[np.ndarray, np.ndarray, float]:
    """(accuracies, standardised difference at each, mean progress after a turn), from 6,000 episodes each."""
    accuracies, unlike, after = np.array([0.55, 0.65, 0.75, 0.85, 0.95]), [], []
    nobody = pd.DataFrame({"run": [], "used": []})
    for number, accuracy in enumerate(accuracies):
        turns = turns_of(np.full(1, accuracy), np.random.default_rng([99, number]), 6_000)
        decided = decided_turns(Records(runs=nobody, episodes=pd.DataFrame(), turns=turns))
        row = differences(decided, Question(draws=2)).set_index("covariate").loc["answer_tokens"]
        unlike.append(row["standardised_difference"])
        after.append(decided["progress_after"].mean())
    smooth = np.polynomial.Polynomial.fit(accuracies, unlike, 2)(accuracies)
    return accuracies, smooth, float(np.mean(after))


@cache
def confidences() -> tuple[np.ndarray, np.ndarray]:
    """Many draws of the confidence of right and of wrong labels."""
    noise = np.random.default_rng(98).normal(0, 0.12, (2, 500_000))
    right, wrong = np.clip(noise + np.array([[0.8], [0.65]]), 0.02, 0.98)
    return right, wrong


@cache
def true_auroc() -> float:
    """Chance that a right label's confidence is the higher one."""
    sure, unsure = confidences()
    return auroc(np.concatenate([sure, unsure]), np.arange(2 * len(sure)) < len(sure))


def truths(accuracy: float) -> dict[str, float]:
    """What an endless study of runs with this accuracy finds."""
    right = (1 - EPSILON) * accuracy + EPSILON / 3
    told = np.full((3, 3), (1 - right) / 2) + np.eye(3) * (right - (1 - right) / 2)
    exact = from_confusion((told * PREVALENCE).ravel())
    sure, unsure = confidences()
    inside = [right * _in_bin(sure), (1 - right) * _in_bin(unsure)]
    accuracies, unlike, after = simulated_truths()
    return {
        **{name: float(exact[name]) for name in ("kappa", "mcc", "sensitivity")},
        "skipped_harm": (1 - right) / 2,
        "auroc_confidence_right": true_auroc(),
        "brier": right * float(((1 - sure) ** 2).mean()) + (1 - right) * float((unsure**2).mean()),
        "reliability, one bin": inside[0] / sum(inside),
        "standardised difference": float(np.interp(accuracy, accuracies, unlike)),
        # A label is independent of what follows, given the oracle's verdict; weights undo its selection.
        "aftermath, difference": 0.0,
        "snips mean": after,
        "aipw mean": after,
    }


def _in_bin(confidence: np.ndarray) -> float:
    return float(((confidence >= 0.7) & (confidence < 0.8)).mean())


def coverage(runs: int, seed_sd: float, reps: int, draws: int = 400) -> dict[str, float]:
    """Share of studies whose interval has the truth in it."""
    rng = np.random.default_rng([10, runs, int(1000 * seed_sd)])
    recipe = truths(ACCURACY)

    def study() -> dict[str, bool]:
        accuracies = np.clip(rng.normal(ACCURACY, seed_sd, runs), 0.5, 0.95)
        here = pd.DataFrame([truths(one) for one in accuracies]).mean()
        found = estimates(turns_of(accuracies, rng), draws)
        inside = {name: row.low <= here.get(name, np.nan) <= row.high for name, row in found.iterrows()}
        pooled, over, plain = (found.loc[name] for name in ("kappa", "kappa over runs", "plain mean"))
        return {
            **{name: hit for name, hit in inside.items() if name not in ("kappa over runs", "plain mean")},
            "kappa, new runs (not claimed)": pooled.low <= recipe["kappa"] <= pooled.high,
            "kappa over runs, new runs": over.low <= recipe["kappa"] <= over.high,
            "plain mean as if unselected (not used)": plain.low <= here["snips mean"] <= plain.high,
        }

    return shares(study() for _ in range(reps))


def table(reps: int) -> pd.DataFrame:
    """One row per procedure and one column per cell."""
    cells = grid(coverage, reps)
    labels = [
        f"{runs} runs, sd {sd:g}" for runs, sd in zip(cells["runs"], cells["sd over runs"], strict=True)
    ]
    found = cells.drop(columns=["runs", "sd over runs"]).T
    found.columns = labels
    return found.rename_axis("interval of").reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reps", type=int, default=500)
    parser.add_argument("--write", type=Path, help="Markdown page whose table is replaced")
    args = parser.parse_args()
    used = time.process_time()
    text = section("Coverage of intervals over turns (nominal 0.95)", table(args.reps), args.reps)
    print(f"{text}\n({time.process_time() - used:.0f} s of processor time)", flush=True)
    if args.write:
        write_block(args.write, "turns", text)


if __name__ == "__main__":
    main()

"""Fit a learned intervention on the judged turns of finished runs; tell its agreement on runs it has not
seen.

    python -m sage.fit_intervention runs/ --write my_conf/intervention/mine.yaml
    python -m sage --config-dir my_conf intervention=mine                            # no query at all
    python -m sage --config-dir my_conf intervention=mine intervention.ask_below=0.8 # asks where it is unsure

Whole runs are held out (every fourth, at least one): turns of one run resemble each other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage.objective.rates import WORDS
from sage.objective.turn_features import NAMES, Seen, features
from sage.records.tables import read_frame

if TYPE_CHECKING:
    import pandas as pd

EPISODE = ["step", "task", "rollout"]
ASK_BELOW = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def training_turns(attempt: Path, turn_budget: int) -> list[tuple[list[float], str, str | None]]:
    """(features, label, judge's reply or None) of every training turn in the records of one run."""
    turns = read_frame(attempt, "turns")
    turns = turns[turns["phase"] == "train"]
    episodes = read_frame(attempt, "episodes")
    goals = episodes[episodes["phase"] == "train"].set_index(EPISODE)["goal"]
    found: list[tuple[list[float], str, str | None]] = []
    for key, group in turns.groupby(EPISODE, sort=True):
        group = group.sort_values("turn")
        made = features(str(goals.loc[key]), [_seen(row) for row in group.to_dict("records")], turn_budget)
        found += zip(made, group["label"], group["judge_reply"], strict=True)
    return found


def judged_turns(attempt: Path, turn_budget: int) -> tuple[np.ndarray, np.ndarray]:
    """(features [n × len(NAMES)], index of the judge's word [n]) of the turns that a judge has labelled."""
    judged = [(row, label) for row, label, reply in training_turns(attempt, turn_budget) if reply]
    rows = [row for row, label in judged if label in WORDS]
    words = [[str(word) for word in WORDS].index(label) for _, label in judged if label in WORDS]
    return np.array(rows).reshape(-1, len(NAMES)), np.array(words, int)


def settings_of(attempts: Sequence[Path]) -> dict[str, Any]:
    """What the judge's runs had and the fitted rule takes over: `weak_weight`, `sees_feedback`,
    `max_new_tokens` of the rule that asked, and `turn_budget`.

    Raises ValueError where the runs differ in one: a reply means another thing then.
    """
    import yaml

    found: dict[str, Any] = {}
    for attempt in attempts:
        config = yaml.safe_load((attempt / "config.yaml").read_text("utf-8"))
        rule = config["intervention"]
        while "sees_feedback" not in rule and "rule" in rule:
            rule = rule["rule"]
        here = {name: rule.get(name) for name in ("weak_weight", "sees_feedback", "max_new_tokens")}
        for name, value in (here | {"turn_budget": config["env"]["turn_budget"]}).items():
            if found.setdefault(name, value) != value:
                raise ValueError(
                    f"These runs differ in {name} ({found[name]} and {value}), so their judge's words do not "
                    "mean the same; give runs of one recipe."
                )
    return found


def _seen(row: dict[str, Any]) -> Seen:
    def number(name: str) -> float | None:
        return None if row[name] is None or np.isnan(row[name]) else float(row[name])

    return Seen(
        observation=row["observation"],
        action=row["action"],
        feedback=row["feedback"],
        failure=row["failure"],
        answer_tokens=int(row["answer_tokens"]),
        reward=float(row["reward"]),
        student_entropy=number("student_entropy"),
        student_logprob=number("student_logprob"),
    )


def fit(rows: np.ndarray, words: np.ndarray) -> dict[str, Any]:
    """The numbers of `intervention=learned`. Raises ValueError where the judge has used one word only."""
    from sklearn.linear_model import LogisticRegression

    present = sorted(set(words.tolist()))
    if len(present) < 2:
        raise ValueError("The judge has used one word only in these runs; there is nothing to learn.")
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale == 0] = 1.0
    model = LogisticRegression(max_iter=2000).fit((rows - mean) / scale, words)
    # With two words scikit-learn keeps one row: the log-odds of the second.
    weights = model.coef_ if len(present) > 2 else np.stack([-model.coef_[0], model.coef_[0]]) / 2
    biases = model.intercept_ if len(present) > 2 else np.array([-1, 1]) * model.intercept_[0] / 2
    coefficients = np.zeros((len(WORDS), len(NAMES)))
    intercepts = np.full(len(WORDS), -1e3)
    coefficients[present], intercepts[present] = weights, biases
    return {
        "features": list(NAMES),
        "mean": _plain(mean),
        "scale": _plain(scale),
        "coefficients": [_plain(row) for row in coefficients],
        "intercepts": _plain(intercepts),
    }


def _plain(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def held_out(fitted: dict[str, Any], rows: np.ndarray, words: np.ndarray) -> pd.DataFrame:
    """Per `ask_below`: share of queries saved, agreement with the judge's word and Cohen's kappa, over all
    turns (those that are asked agree by definition)."""
    import pandas as pd
    from sklearn.metrics import cohen_kappa_score

    scaled = (rows - np.array(fitted["mean"])) / np.array(fitted["scale"])
    logits = scaled @ np.array(fitted["coefficients"]).T + np.array(fitted["intercepts"])
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    table = []
    for below in ASK_BELOW:
        asked = chances.max(axis=1) < below
        said = np.where(asked, words, chances.argmax(axis=1))
        table.append(
            {
                "ask_below": below,
                "queries_saved": float(1 - asked.mean()),
                "agreement": float((said == words).mean()),
                "kappa": float(cohen_kappa_score(said, words, labels=range(len(WORDS)))),
                "turns": len(words),
            }
        )
    return pd.DataFrame(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m sage.fit_intervention", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that had a judge")
    parser.add_argument("--write", type=Path, help="YAML file to write: DIR/intervention/NAME.yaml")
    parser.add_argument("--turn-budget", type=int, help="of turn positions (default: the runs')")
    options = parser.parse_args(arguments)
    attempts = sorted({path.parent for run in options.runs for path in run.rglob("status.json")})
    judged = [attempt for attempt in attempts if len(judged_turns(attempt, 1)[1])]
    try:
        settings = settings_of(judged)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.turn_budget:
        settings["turn_budget"] = options.turn_budget
    data = [judged_turns(attempt, settings["turn_budget"]) for attempt in judged]
    if len(data) < 2:
        print(
            f"{len(data)} of {len(attempts)} runs there have turns that a judge labelled; "
            "at least two are needed, one to fit and one to hold out.",
            file=sys.stderr,
        )
        return 2
    test = set(range(3, len(data), 4)) or {len(data) - 1}
    kept = [d for i, d in enumerate(data) if i not in test]
    unseen = [data[i] for i in sorted(test)]
    try:
        fitted = fit(np.concatenate([d[0] for d in kept]), np.concatenate([d[1] for d in kept]))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    table = held_out(fitted, np.concatenate([d[0] for d in unseen]), np.concatenate([d[1] for d in unseen]))
    counted = sum(len(d[1]) for d in kept)
    print(f"Fitted on {counted:,} judged turns of {len(kept)} runs; on {len(unseen)} runs it has not seen:\n")
    print(table.round(3).to_string(index=False))
    if options.write:
        write(settings | fitted, options.write, f"{counted:,} judged turns of {len(kept)} runs")
        print(f"\nWrote {options.write}.")
    return 0


def write(fitted: dict[str, Any], path: Path, source: str) -> None:
    """The option of the config group `intervention`; it never asks until `ask_below` is set."""
    import yaml

    content = {"name": "learned", "ask_below": 0.0, **fitted}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, width=110, default_flow_style=None)
    path.write_text(
        f"# A classifier in the place of the teacher's query, fitted on {source}.\n{text}", "utf-8"
    )


if __name__ == "__main__":
    sys.exit(main())

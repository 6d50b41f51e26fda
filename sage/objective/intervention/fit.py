"""Fit a learned intervention on the judged turns of finished runs; tell its agreement on runs it has not
seen.

    python -m sage.objective.intervention.fit runs/ --write my_conf/intervention/mine.yaml
    python -m sage --config-dir my_conf intervention=mine                            # no query at all
    python -m sage --config-dir my_conf intervention=mine intervention.ask_below=0.8 # asks where it is unsure

Whole runs are held out (every fourth, at least one): turns of one run resemble each other. Of several
attempts at a run the last finished one counts. A folder that cannot be read is a note, and the others are
fitted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage.errors import reason_of
from sage.objective.intervention.rates import WORDS
from sage.objective.intervention.turn_features import NAMES, Seen, features
from sage.records.below import open_below
from sage.records.faults import what_failed
from sage.records.files import Unreadable
from sage.records.reader import Attempt
from sage.records.tables import DamagedRecords, read_frame

if TYPE_CHECKING:
    import pandas as pd

EPISODE = ["step", "task", "rollout"]
ASK_BELOW = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def training_turns(attempt: Path, turn_budget: int) -> list[tuple[list[float], str, str | None]]:
    """(features, label, judge's reply or None) of every training turn in the records of one run.

    Raises Unreadable.
    """
    try:
        turns, episodes = read_frame(attempt, "turns"), read_frame(attempt, "episodes")
        turns = turns[turns["phase"] == "train"]
        goals = episodes[episodes["phase"] == "train"].set_index(EPISODE)["goal"]
        found: list[tuple[list[float], str, str | None]] = []
        for key, group in turns.groupby(EPISODE, sort=True):
            group = group.sort_values("turn")
            rows = [_seen(row) for row in group.to_dict("records")]
            found += zip(
                features(str(goals.loc[key]), rows, turn_budget),
                group["label"],
                group["judge_reply"],
                strict=True,
            )
        return found
    except (DamagedRecords, OSError) as error:
        raise Unreadable(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(
            f"The turns in {attempt} are not as this version writes them ({reason_of(error)})."
        ) from error


def judged_turns(attempt: Path, turn_budget: int) -> tuple[np.ndarray, np.ndarray]:
    """(features [n × len(NAMES)], index of the judge's word [n]) of the turns that a judge has labelled."""
    judged = [(row, label) for row, label, reply in training_turns(attempt, turn_budget) if reply]
    rows = [row for row, label in judged if label in WORDS]
    words = [[str(word) for word in WORDS].index(label) for _, label in judged if label in WORDS]
    return np.array(rows).reshape(-1, len(NAMES)), np.array(words, int)


def settings_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings of a judged run (run.json's) hand on to the fitted rule: `turn_budget`, and
    `weak_weight`, `sees_feedback`, `max_new_tokens` of the rule that asked. Raises KeyError, TypeError."""
    rule = fields["intervention"]
    while "sees_feedback" not in rule and "rule" in rule:
        rule = rule["rule"]
    asked = {name: rule.get(name) for name in ("weak_weight", "sees_feedback", "max_new_tokens")}
    return asked | {"turn_budget": int(fields["env"]["turn_budget"])}


def in_common(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of all runs. Raises ValueError where two differ in one: a reply means another thing
    then."""
    common: dict[str, Any] = {}
    for here in found:
        for name, value in here.items():
            if common.setdefault(name, value) != value:
                raise ValueError(
                    f"These runs differ in {name} ({common[name]} and {value}), so their judge's words do "
                    "not mean the same; give runs of one recipe."
                )
    return common


def judged_runs(roots: Sequence[Path]) -> tuple[list[tuple[Path, dict[str, Any]]], int, list[str]]:
    """(folder, `settings_of`) of every run below `roots` with turns that a judge labelled, how many runs
    there are, and a note for whatever is left out."""
    attempts, notes = open_below(roots)
    runs: dict[Path, list[Attempt]] = {}
    for attempt in attempts:
        runs.setdefault(attempt.folder.path.parent, []).append(attempt)
    judged: list[tuple[Path, dict[str, Any]]] = []
    for chain in runs.values():
        done = [one for one in chain if one.status is not None and one.status.state == "done"]
        chosen = (done or chain)[-1]
        path, identity = chosen.folder.path, chosen.identity
        notes += [f"{one.folder.path} is left out: {path.name} counts." for one in chain if one is not chosen]
        assert identity is not None
        try:
            if len(judged_turns(path, 1)[1]):
                judged.append((path, settings_of(identity.fields)))
        except Unreadable as error:
            notes.append(str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            notes.append(f"{path / 'run.json'} has no settings of a judge ({reason_of(error)}).")
    return judged, len(runs), notes


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
    parser = argparse.ArgumentParser(prog="python -m sage.objective.intervention.fit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that had a judge")
    parser.add_argument("--write", type=Path, help="YAML file to write: DIR/intervention/NAME.yaml")
    parser.add_argument("--turn-budget", type=int, help="of turn positions (default: the runs')")
    options = parser.parse_args(arguments)
    judged, count, notes = judged_runs(options.runs)
    for note in notes:
        print(note, file=sys.stderr)
    try:
        settings = in_common([found for _, found in judged])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.turn_budget:
        settings["turn_budget"] = options.turn_budget
    data = [judged_turns(attempt, settings["turn_budget"]) for attempt, _ in judged]
    if len(data) < 2:
        print(
            f"{len(data)} of {count} runs there have turns that a judge labelled; "
            "at least two are needed, one to fit and one to hold out.",
            file=sys.stderr,
        )
        return 2
    return _fit_and_tell(settings, data, options.write)


def _fit_and_tell(
    settings: dict[str, Any], data: Sequence[tuple[np.ndarray, np.ndarray]], target: Path | None
) -> int:
    """Fit on some of the runs' data, print the agreement on the others, write `target`; the exit code."""
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
    if target is not None:
        try:
            write(settings | fitted, target, f"{counted:,} judged turns of {len(kept)} runs")
        except OSError as error:
            print(f"--write {target}: {what_failed(error)}.", file=sys.stderr)
            return 2
        print(f"\nWrote {target}.")
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

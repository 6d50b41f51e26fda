"""What a comparison refuses: different configs under one name, duplicated, missing or mixed games.

Each check raises `Refusal` with one sentence; none repairs anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.episodes import LARGEST
from analysis.errors import Refusal
from analysis.question import EVERYTHING, Question
from analysis.records import Records

GAME = ["env", "split", "source", "task", "rollout"]


def check_baseline(baseline: str, methods: Iterable[str], where: str = "") -> None:
    """Refuse a baseline of which there is no run, with the methods there are and the nearest, and one that is
    the name of several recipes."""
    known = sorted(set(methods))
    if baseline in known:
        return
    if several := [name for name in known if name.startswith(f"{baseline}[")]:
        raise Refusal(
            f"{baseline!r} is the name of {len(several)} recipes here; give the whole name of one as the "
            f"baseline, or run folders that hold one of them: {'; '.join(several)}."
        )
    shown = ", ".join(known[:6]) + (f" and {len(known) - 6} more" if len(known) > 6 else "")
    near = difflib.get_close_matches(baseline.lower(), [name.lower() for name in known], 1, cutoff=0.6)
    nearest = next((f", and the nearest is {name}" for name in known if [name.lower()] == near), "")
    raise Refusal(
        f"There is no run of the baseline {baseline!r}{where}; methods here are {shown[:160]}{nearest}."
    )


def check_margin(margin: float | None, metric: str) -> None:
    """Refuse a margin within which any two success rates are."""
    if margin is not None and metric == "won" and margin >= 1:
        raise Refusal(
            f"A margin of {margin:g} calls any two success rates equal: rates lie between 0 and 1, so write "
            f"{margin / 100:g} for {margin:g} points."
        )


NO_METRIC = ("seed", "step", "rollout", "ok")
"""Numbers that say which play a row is, and nothing about how it went."""


def check_metric(episodes: pd.DataFrame, metric: str) -> None:
    """Refuse a metric that is no column, says nothing about the play, or holds what no mean can be made
    of."""
    known = [
        "success" if name == "won" else str(name)
        for name in episodes.columns
        if pd.api.types.is_numeric_dtype(episodes[name]) and name not in NO_METRIC
    ]
    if metric not in episodes:
        near = difflib.get_close_matches(metric.lower(), known, 1, cutoff=0.6)
        nearest = f", and the nearest is {near[0]}" if near else ""
        raise Refusal(
            f"The episodes have no column {metric}; numeric columns are {', '.join(known)[:200]}{nearest}."
        )
    column = episodes[metric]
    # A column of objects may hold numbers (decimals of a Parquet file); one of dates or words does not.
    dated = pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column)
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = (column.notna() & (numbers.isna() | dated)) | (numbers.astype(float).abs() > LARGEST)
    if metric in NO_METRIC or wrong.any():
        found = "" if metric in NO_METRIC else f" (it holds {str(column[wrong].iloc[0])[:40]!r})"
        raise Refusal(
            f"The column {metric} is no metric{found}; numeric columns are {', '.join(known)[:200]}, and a "
            f"metric's values are numbers of at most {LARGEST:g}."
        )


def check_configs(records: Records) -> None:
    """Refuse one recipe and seed run twice; different recipes never share a name (`analysis.recipes`)."""
    used = records.runs[records.runs["used"].astype(bool)]
    for (method, env), group in used.groupby(["method", "env"], sort=True):
        twice = group.loc[group["seed"].duplicated(), "seed"]
        if len(twice):
            both = ", ".join(group.loc[group["seed"] == twice.iloc[0], "run"].astype(str))
            raise Refusal(
                f"{method} on {env} has seed {twice.iloc[0]} more than once (runs {both}); keep one of them."
            )


def check_unique(episodes: pd.DataFrame) -> None:
    """Refuse a game that one run played twice under one rollout index, and one game file under two task
    ids."""
    # Codes instead of strings: the check runs over a million episodes in well under a second.
    key = episodes.groupby(["run", "step", *GAME], sort=False, observed=True).ngroup()
    twice = key.duplicated()
    if twice.any():
        row = episodes[twice.to_numpy()].iloc[0]
        raise Refusal(
            f"Run {row['run']} has {int(twice.sum())} duplicated episodes, first game {row['task']} of "
            f"{row['split']} at "
            f"step {row['step']}: each game counts once per rollout index, so take the copies out, or number "
            "repeats in a column rollout."
        )
    named = episodes.loc[episodes["game_sha256"].fillna("") != "", ["env", "split", "game_sha256", "task"]]
    if len(named):
        tasks = named.drop_duplicates().groupby(["env", "split", "game_sha256"], observed=True)["task"]
        double = tasks.nunique()
        double = double[double > 1]
        if len(double):
            names = sorted(tasks.get_group(double.index[0]))
            raise Refusal(f"{names[0]} and {names[1]} are the same game file under two names; count it once.")


def check_sources(episodes: pd.DataFrame) -> None:
    """Refuse official and generated games under one environment and split."""
    places = episodes[["env", "split", "source"]].drop_duplicates()
    for (env, split), group in places.groupby(["env", "split"], sort=True, observed=True):
        sources = sorted(group["source"])
        if len(sources) > 1:
            raise Refusal(
                f"{env} {split} mixes game sources ({' and '.join(map(str, sources))}); their scores are not "
                f"comparable, so choose one with --source {sources[0]}."
            )


def check_same_games(episodes: pd.DataFrame, games: str = "all") -> pd.DataFrame:
    """Refuse runs that did not play the same games of a split; `games="common"` keeps the shared ones
    instead."""
    kept = []
    for (env, split), group in episodes.groupby(["env", "split"], sort=True, observed=True):
        pairs = group[["run", "task"]].drop_duplicates()
        runs_of = pairs.groupby("task", observed=True).size()
        n_runs = pairs["run"].nunique()
        common = runs_of.index[runs_of == n_runs]
        if len(common) == len(runs_of):
            kept.append(group)
        elif games == "common":
            if not len(common):
                raise Refusal(f"The runs on {env} {split} have no game in common.")
            kept.append(group[group["task"].isin(common)])
        else:
            counts = pairs.groupby("run", observed=True).size().sort_values(kind="stable")
            some = runs_of.index[runs_of < n_runs][0]
            raise Refusal(
                f"The runs on {env} {split} did not play the same games: run {counts.index[0]} played "
                f"{counts.iloc[0]} "
                f"of {len(runs_of)}, and {len(runs_of) - len(common)} games are missing in some run "
                f"(first: {some}); "
                "finish those runs, or pass --games common to compare on the shared games and say so."
            )
    return pd.concat(kept) if kept else episodes


def check_last_steps(chosen: pd.DataFrame) -> None:
    """Refuse a method whose runs were last evaluated at different optimizer steps: they are not equally far
    on."""
    for (method, env, split), group in chosen.groupby(["method", "env", "split"], sort=True, observed=True):
        last = group.groupby("run", sort=True, observed=True)["step"].first().sort_values(kind="stable")
        if last.iloc[0] != last.iloc[-1]:
            raise Refusal(
                f"The last evaluation of {method} on {env} {split} is after {last.iloc[0]} steps in run "
                f"{last.index[0]} and after {last.iloc[-1]} in run {last.index[-1]}; choose one with --step."
            )


def check_same_splits(chosen: pd.DataFrame) -> None:
    """Refuse a run that was not evaluated on a split on which other runs of its method were."""
    for (method, env), group in chosen.groupby(["method", "env"], sort=True, observed=True):
        pairs = group[["run", "split"]].drop_duplicates()
        runs_of = pairs.groupby("split", sort=True, observed=True)["run"].agg(set)
        everyone = set(pairs["run"])
        for split, runs in runs_of.items():
            if runs != everyone:
                raise Refusal(
                    f"Run {min(everyone - runs)} of {method} was not evaluated on {env} {split}, other "
                    f"runs of {method} were; evaluate it, or name another split with --split."
                )


def select(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """Evaluation episodes that answer a question, after every check: the last evaluation of each run and
    split, or that at `question.step`."""
    check_configs(records)
    episodes = records.episodes
    if not len(episodes):
        raise Refusal("There is no episode of a finished run in these records.")
    keep = (episodes["phase"] == "eval").to_numpy() & of_place(episodes, question)
    if question.leave_out:
        named = episodes["task"].isin(question.leave_out).to_numpy()
        if not (named & keep).any():
            raise Refusal("None of the tasks to leave out was played here.")
        keep = keep & ~named
    chosen = episodes[keep]
    if not len(chosen):
        asked = ", ".join(f"{name}={getattr(question, name)}" for name in PLACE if getattr(question, name))
        raise Refusal(f"No evaluation episode matches {asked or 'that question'}.")
    if question.step is None:
        last = chosen.groupby(["run", "split"], observed=True)["step"].transform("max")
        chosen = chosen[chosen["step"] == last]
        check_last_steps(chosen)
    else:
        chosen = chosen[chosen["step"] == question.step]
        if not len(chosen):
            raise Refusal(f"No run was evaluated at step {question.step}.")
    check_same_splits(chosen)
    check_unique(chosen)
    check_sources(chosen)
    return check_same_games(chosen, question.games)


PLACE = ("env", "split", "source")


def of_place(rows: pd.DataFrame, question: Question) -> np.ndarray:
    """Which rows are of the environment, split, source and methods of the question."""
    keep = np.ones(len(rows), bool)
    for name in PLACE:
        wanted = getattr(question, name)
        if wanted is not None:
            keep &= (rows[name] == wanted).to_numpy()
    if question.methods is not None:
        keep &= rows["method"].isin(question.methods).to_numpy()
    return keep

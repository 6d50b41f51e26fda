"""How each method did: per run with a Wilson interval, per method over its runs, per task type, over
splits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import Cells, cells, each_env, each_split
from analysis.check import check_metric, select
from analysis.episodes import CONTEXT_FULL
from analysis.intervals import t_interval, wilsons
from analysis.not_ok import rate_bounds, without_empty
from analysis.question import EVERYTHING, Question
from analysis.records import Records
from analysis.runmeans import RunMeans

PLACE = ["env", "source", "split"]


def per_run(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """One row per run, env and split: episodes, episodes not ok, episodes that the context cut (not won),
    mean, and for `won` the Wilson interval of its rate.

    Estimand of the interval: this checkpoint on games like these. It knows nothing about other training runs.
    """
    episodes, metric = select(records, question), question.metric
    check_metric(episodes, metric)
    ok = episodes[episodes["ok"]]
    keys = [*PLACE, "method", "seed", "run"]
    groups = episodes.groupby(keys, sort=True, observed=True)
    frame = groups.agg(
        step=("step", "max"),
        episodes=("ok", "size"),
        episodes_ok=("ok", "sum"),
        episodes_context_full=("status", lambda of_run: int(of_run.eq(CONTEXT_FULL).sum())),
    ).reset_index()
    means = ok.groupby(keys, sort=True, observed=True)[metric].agg(["mean", "sum"]).reset_index()
    frame = frame.merge(means, on=keys, how="left")
    frame.insert(len(keys) + 2, "episodes_not_ok", frame["episodes"] - frame["episodes_ok"])
    if metric == "won":
        frame["wilson_low"], frame["wilson_high"] = wilsons(
            frame["sum"].fillna(0), frame["episodes_ok"], question.level
        )
        frame["wins"] = frame["sum"].fillna(0).astype(int)
        gaps = frame["episodes_not_ok"] > 0
        if gaps.any():
            frame["bounds_low"] = (frame["wins"] / frame["episodes"]).where(gaps)
            frame["bounds_high"] = ((frame["wins"] + frame["episodes_not_ok"]) / frame["episodes"]).where(
                gaps
            )
    return _with_mean_scores(frame.drop(columns="sum"), ok, keys)


def summary(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """One row per method, env and split: runs, mean over runs, sd over runs and Student's interval over runs.

    `mean_micro` weighs every game alike, `mean_macro` every task type; sd and interval belong to the
    micro-average. Where scores are graded, `score` is their mean, and `score_clipped` the mean of the scores
    clipped at 0 where some score is negative; both with an interval over runs.
    `runs_unfinished` counts runs of that method and env that are not in the numbers. With one run there is
    no spread and no interval: the columns stay empty.
    """
    rows = []
    for group in each_split(select(records, question)):
        here = _Place.of(group, question.metric)
        rows += [_row(records, here, method, question) for method in sorted(set(here.micro.methods))]
    return without_empty(pd.DataFrame(rows))


@dataclass(frozen=True)
class _Place:
    """One split: its episodes, their cell tables under both averages, and those of what stands beside the
    metric."""

    episodes: pd.DataFrame
    micro: Cells
    macro: Cells
    scores: dict[str, Cells]

    @classmethod
    def of(cls, episodes: pd.DataFrame, metric: str) -> _Place:
        micro, macro = cells(episodes, metric), cells(episodes, metric, "macro")
        return cls(episodes, micro, macro, _score_cells(episodes, metric))


def run_interval(values: Any, level: float, metric: str) -> tuple[float, float]:
    """Student's interval over run means; of a success rate only the part between 0 and 1."""
    bounds = t_interval(values, level)
    low, high = np.clip(bounds, 0.0, 1.0) if metric == "won" else bounds
    return float(low), float(high)


def graded(episodes: pd.DataFrame) -> bool:
    """Whether these episodes have scores other than 0 and 1."""
    scores = episodes.loc[episodes["ok"], "score"].dropna()
    return bool(len(scores)) and not bool(scores.isin((0.0, 1.0)).all())


def _score_cells(group: pd.DataFrame, metric: str, average: str = "micro") -> dict[str, Cells]:
    """The cell tables of what stands beside `metric`: graded scores (none where scores are 0 and 1), and the
    success rate where the metric is another."""
    names = [] if metric == "won" else ["won"]
    if graded(group):
        negative = bool((group.loc[group["ok"], "score"] < 0).any())
        names += [name for name in ("score", "score_clipped")[: 1 + negative] if name != metric]
    return {name: cells(group, name, average) for name in names}


def _over_runs(tables: dict[str, Cells], method: str, level: float) -> dict[str, float]:
    """Mean of each score over a method's runs, with Student's interval."""
    row = {}
    for name, table in tables.items():
        means = table.sample(method)
        title = "success" if name == "won" else name
        row[title] = means.mean
        row[f"{title}_low"], row[f"{title}_high"] = run_interval(means, level, name)
    return row


def _spread(means: RunMeans, level: float, metric: str) -> dict[str, float]:
    """Standard deviation of run means, nan for one run, and Student's interval of their mean."""
    low, high = run_interval(means, level, metric)
    return {"sd_runs": float(np.sqrt(means.observed)), "low": low, "high": high}


def _row(records: Records, here: _Place, method: str, question: Question) -> dict[str, Any]:
    micro, level, metric = here.micro, question.level, question.metric
    chosen = micro.rows(method)
    means = micro.sample(method)
    unfinished = records.unused
    unfinished = unfinished[(unfinished["method"] == method) & (unfinished["env"] == micro.env)]
    mine = here.episodes[here.episodes["method"] == method]
    return {
        "env": micro.env,
        "source": micro.source,
        "split": micro.split,
        "method": method,
        "runs": len(chosen),
        "mean_micro": means.mean,
        **_spread(means, level, metric),
        **rate_bounds(here.episodes, method, metric),
        "mean_macro": here.macro.sample(method).mean,
        **_over_runs(here.scores, method, level),
        "mean_turns": float(mine.loc[mine["ok"], "turns"].mean()),
        "games": len(micro.games),
        "episodes": len(mine),
        "episodes_not_ok": int(micro.not_ok[chosen].sum()),
        "episodes_context_full": int(micro.context_full[chosen].sum()),
        "runs_unfinished": len(unfinished),
    }


def over_splits(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """The macro-average over an environment's splits: each split counts the same, whatever its games.

    One row per method and env with several splits; mean over runs, sd over runs, Student's interval, and the
    same for graded scores. Empty where no environment has two splits.
    """
    rows, level, metric = [], question.level, question.metric
    for group in each_env(select(records, question)):
        table, scores = cells(group, metric, "splits"), _score_cells(group, metric, "splits")
        for method in sorted(set(table.methods)):
            means = table.sample(method)
            rows.append(
                {
                    "env": table.env,
                    "source": table.source,
                    "split": table.split,
                    "method": method,
                    "runs": len(means),
                    "mean": means.mean,
                    **_spread(means, level, metric),
                    **rate_bounds(group, method, metric, "splits"),
                    **_over_runs(scores, method, level),
                    "games": len(table.games),
                }
            )
    return without_empty(pd.DataFrame(rows))


def per_task_type(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """The summary split by task type: mean over run means, sd over runs, Student's interval over runs."""
    episodes, level, metric = select(records, question), question.level, question.metric
    ok = episodes[episodes["ok"]]
    keys = [*PLACE, "method", "task_type"]
    rows = []
    for key, group in episodes.groupby(keys, sort=True, observed=True):
        known, method = group[group["ok"]], str(group["method"].iloc[0])
        if not len(known):
            continue
        means = cells(known, metric).sample(method)
        row = {**dict(zip(keys, key, strict=True)), "runs": len(means), "mean": means.mean}
        rows.append(row | _spread(means, level, metric) | rate_bounds(group, method, metric))
    frame = without_empty(pd.DataFrame(rows))
    games = (
        episodes.groupby([*PLACE, "task_type"], observed=True)["task"].nunique().rename("games").reset_index()
    )
    return _with_mean_scores(frame.merge(games, on=[*PLACE, "task_type"], how="left"), ok, keys)


def _with_mean_scores(frame: pd.DataFrame, ok: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """`frame` with the mean score of each of its groups, where scores are graded; the mean over runs of the
    runs' means."""
    if not graded(ok):
        return frame
    names = ["score", "score_clipped"] if (ok["score"] < 0).any() else ["score"]
    runs = ok.groupby(list(dict.fromkeys([*keys, "run"])), sort=True, observed=True)[names].mean()
    return frame.merge(runs.groupby(keys, sort=True, observed=True).mean().reset_index(), on=keys, how="left")


def run_list(records: Records) -> pd.DataFrame:
    """Every run that was found, used or not."""
    columns = [
        "run",
        "attempt",
        "method",
        "env",
        "seed",
        "state",
        "used",
        "reason",
        "config_id",
        "commit",
        "plan",
    ]
    return records.runs[columns]


def tables(records: Records, question: Question = EVERYTHING) -> dict[str, pd.DataFrame]:
    """`summary`, `macro_average` (where an environment has several splits), `per_task_type`, `per_run`,
    `runs`; with `leave_out` also `summary_all_tasks`, in which those tasks count."""
    found = {"summary": summary(records, question)}
    if question.leave_out:
        found["summary_all_tasks"] = summary(records, replace(question, leave_out=()))
    averaged = over_splits(records, question)
    if len(averaged):
        found["macro_average"] = averaged
    return found | {
        "per_task_type": per_task_type(records, question),
        "per_run": per_run(records, question),
        "runs": run_list(records),
    }

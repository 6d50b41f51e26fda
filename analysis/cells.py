"""Episodes as a table of runs × games: the shape that every procedure here works on.

Invariant: a cell is the mean over a game's rollouts whose status is ok; a game with none is nan, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.check import check_metric
from analysis.episodes import CONTEXT_FULL
from analysis.errors import Refusal
from analysis.question import AVERAGES
from analysis.runmeans import RunMeans, least_variance, least_variance_of_pairs


@dataclass(frozen=True)
class Cells:
    """One environment, split and source. `values[r, g]` is run r's mean on game g; `weights[g]` sum to one
    and carry the estimand: equal for the micro-average, equal per task type for the macro-average, equal per
    split for the macro-average over an environment's splits."""

    values: np.ndarray
    runs: list[str]
    methods: np.ndarray
    seeds: np.ndarray
    games: list[str]
    strata: np.ndarray
    weights: np.ndarray
    not_ok: np.ndarray
    """Episodes of each run that are not ok."""
    context_full: np.ndarray
    """Episodes of each run that the limit on their tokens cut: not won, and ok."""
    grain: float = 1.0
    """How far one play can move a cell: the range of a result (1 for wins and losses; of graded ones what was
    seen, 0 included) over the plays of a game."""
    env: str = ""
    split: str = ""
    source: str = ""

    def rows(self, method: str) -> np.ndarray:
        """Row numbers of a method's runs."""
        return np.flatnonzero(self.methods == method)

    def run_means(self) -> np.ndarray:
        """Weighted mean of each run over its ok games."""
        return weighted_means(self.values, self.weights)

    def pairs(self, method: str, other: str) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the runs of two methods that share a seed, aligned, by seed."""
        mine, theirs = ({self.seeds[row]: row for row in self.rows(name)} for name in (method, other))
        shared = sorted(set(mine) & set(theirs))
        return np.array([mine[s] for s in shared], int), np.array([theirs[s] for s in shared], int)

    def gaps(self, rows_a: np.ndarray, rows_b: np.ndarray) -> tuple[RunMeans, np.ndarray]:
        """Of aligned pairs of runs a − b: the differences of their means, with the least variance that the
        games of both leave them, and the differences [pairs, games] (nan where either is unknown)."""
        by_game = self.values[rows_a] - self.values[rows_b]
        means = self.run_means()
        least = least_variance_of_pairs(by_game, self.weights, self.grain)
        return RunMeans(means[rows_a] - means[rows_b], least), by_game

    @property
    def pair_grain(self) -> float:
        """How far a play of either run can move a pair's difference on a game: half a game each way,
        twice."""
        return float(np.sqrt(2)) * self.grain

    def sample(self, method: str) -> RunMeans:
        """The run means of a method, with the least variance that they can have."""
        return self.sample_of(self.rows(method))

    def sample_of(self, rows: np.ndarray) -> RunMeans:
        """The same for the runs of these rows, which are runs of one recipe."""
        values = self.values[rows]
        least = least_variance(values, self.weights, self.grain)
        return RunMeans(weighted_means(values, self.weights), least)


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Row means under `weights`, ignoring nan."""
    known = ~np.isnan(values)
    total = known @ weights
    return np.divide(
        np.nan_to_num(values) @ weights, total, out=np.full(len(values), np.nan), where=total > 0
    )


def cells(episodes: pd.DataFrame, metric: str = "won", average: str = "micro") -> Cells:
    """The cell table of one env × split × source, or of one env with `average="splits"` (already selected and
    checked)."""
    check_metric(episodes, metric)
    if average not in AVERAGES:
        raise Refusal(
            "average is micro (every game counts the same), macro (every task type does) or splits (every "
            f"split does), not {average}."
        )
    ok = episodes["ok"].to_numpy(bool)
    value = pd.to_numeric(episodes[metric]).to_numpy(float, na_value=np.nan)
    unknown = ok & np.isnan(value)
    if unknown.any():
        row = episodes[unknown].iloc[0]
        raise Refusal(
            f"{int(unknown.sum())} of {int(ok.sum())} episodes on {row['env']} {row['split']} have no "
            f"{metric} (first: {row['task']} in run {row['run']})."
        )
    value = np.where(ok, value, np.nan)
    full = episodes["status"].eq(CONTEXT_FULL).to_numpy(bool)
    run_code, runs = pd.factorize(episodes["run"], sort=True)
    name = episodes["task"]
    if average == "splits":
        name = episodes["split"].astype(str) + "/" + name.astype(str)
    game_code, games = pd.factorize(name, sort=True)
    shape = (len(runs), len(games))
    flat = run_code * shape[1] + game_code
    known = ~np.isnan(value)
    count = np.bincount(flat[known], minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(flat[known], value[known], minlength=shape[0] * shape[1]).reshape(shape)
    table = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    if not known.any():
        raise Refusal(f"No episode on {episodes['env'].iloc[0]} {episodes['split'].iloc[0]} is ok.")
    first_run = episodes.iloc[np.unique(run_code, return_index=True)[1]]
    first_game = episodes.iloc[np.unique(game_code, return_index=True)[1]]
    strata, _ = pd.factorize(first_game["split" if average == "splits" else "task_type"], sort=True)
    if average == "micro":
        strata = np.zeros(len(games), int)
    size = np.bincount(strata)
    weights = 1.0 / size[strata] / len(size)
    return Cells(
        values=table,
        runs=[str(run) for run in runs],
        methods=first_run["method"].to_numpy(object),
        seeds=first_run["seed"].to_numpy(),
        games=[str(game) for game in games],
        strata=strata,
        weights=weights,
        not_ok=np.bincount(run_code, ~ok, minlength=len(runs)).astype(int),
        context_full=np.bincount(run_code, full, minlength=len(runs)).astype(int),
        grain=(1.0 if metric == "won" else _span(value)) / max(1.0, float(count.sum() / (count > 0).sum())),
        **place_of(episodes, average),
    )


def _span(value: np.ndarray) -> float:
    """From the lowest to the highest known value, with 0 among them."""
    known = value[~np.isnan(value)]
    return float(known.max(initial=0.0) - known.min(initial=0.0))


def each_split(episodes: pd.DataFrame) -> list[pd.DataFrame]:
    """The episodes of each env × split × source, in a fixed order."""
    return [group for _, group in episodes.groupby(["env", "split", "source"], sort=True, observed=True)]


def macro_name(splits: list[str]) -> str:
    """What a macro-average over splits is called wherever a split's name would stand."""
    return f"macro-average of {', '.join(map(str, splits))}"


def each_env(episodes: pd.DataFrame) -> list[pd.DataFrame]:
    """The episodes of each environment that has several splits of one source, for the macro-average over
    them."""
    places = episodes.groupby(["env", "source"], sort=True, observed=True)
    return [group for _, group in places if group["split"].nunique() > 1]


def place_of(episodes: pd.DataFrame, average: str) -> dict[str, str]:
    """`env`, `source` and `split` of the episodes of one place; `split` names all of them where `average` is
    over them."""
    splits = sorted(episodes["split"].unique())
    return {
        "env": str(episodes["env"].iloc[0]),
        "source": str(episodes["source"].iloc[0]),
        "split": macro_name(splits) if average == "splits" else str(splits[0]),
    }


def each_place(episodes: pd.DataFrame, average: str) -> list[pd.DataFrame]:
    """The episodes of each place that `average` speaks of: a split, or all splits of an environment."""
    if average != "splits":
        return each_split(episodes)
    places = each_env(episodes)
    if not places:
        raise Refusal("A macro-average over splits needs at least two splits of one environment and source.")
    return places

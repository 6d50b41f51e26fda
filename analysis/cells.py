"""Episodes as a table of runs × games: the shape that every procedure here works on.

Invariant: a cell is the mean over a game's rollouts whose status is ok; a game with none is nan, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.errors import Refusal


@dataclass(frozen=True)
class Cells:
    """One environment, split and source. `values[r, g]` is run r's mean on game g; `weights[g]` sum to one
    and carry the estimand: equal for the micro-average, equal per task type for the macro-average."""

    values: np.ndarray
    runs: list[str]
    methods: np.ndarray
    seeds: np.ndarray
    games: list[str]
    strata: np.ndarray
    weights: np.ndarray
    not_ok: np.ndarray
    """Episodes of each run that are not ok."""
    env: str = ""
    split: str = ""
    source: str = ""

    def rows(self, method: str) -> np.ndarray:
        """Row numbers of a method's runs."""
        return np.flatnonzero(self.methods == method)

    def run_means(self) -> np.ndarray:
        """Weighted mean of each run over its ok games."""
        return weighted_means(self.values, self.weights)


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Row means under `weights`, ignoring nan."""
    known = ~np.isnan(values)
    total = known @ weights
    return np.divide(
        np.nan_to_num(values) @ weights, total, out=np.full(len(values), np.nan), where=total > 0
    )


def cells(episodes: pd.DataFrame, metric: str = "won", average: str = "micro") -> Cells:
    """The cell table of one env × split × source (already selected and checked)."""
    if metric not in episodes:
        raise Refusal(
            f"The episodes have no column {metric}; numeric columns are {', '.join(numeric(episodes))}."
        )
    if average not in ("micro", "macro"):
        raise Refusal(
            f"average is micro (every game counts the same) or macro (every task type does), not {average}."
        )
    ok = episodes["ok"].to_numpy(bool)
    value = pd.to_numeric(episodes[metric]).to_numpy(float, na_value=np.nan)
    value = np.where(ok, value, np.nan)
    run_code, runs = pd.factorize(episodes["run"], sort=True)
    game_code, games = pd.factorize(episodes["task"], sort=True)
    shape = (len(runs), len(games))
    flat = run_code * shape[1] + game_code
    known = ~np.isnan(value)
    count = np.bincount(flat[known], minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(flat[known], value[known], minlength=shape[0] * shape[1]).reshape(shape)
    table = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    first_run = episodes.iloc[np.unique(run_code, return_index=True)[1]]
    first_game = episodes.iloc[np.unique(game_code, return_index=True)[1]]
    strata, _ = pd.factorize(first_game["task_type"], sort=True)
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
        env=str(episodes["env"].iloc[0]),
        split=str(episodes["split"].iloc[0]),
        source=str(episodes["source"].iloc[0]),
    )


def numeric(frame: pd.DataFrame) -> list[str]:
    """Columns that hold numbers."""
    return [str(name) for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])]


def each_split(episodes: pd.DataFrame) -> list[pd.DataFrame]:
    """The episodes of each env × split × source, in a fixed order."""
    return [group for _, group in episodes.groupby(["env", "split", "source"], sort=True, observed=True)]

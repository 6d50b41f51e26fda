"""Run means as a sample, with the least variance that a run mean can have: what its games leave to chance.

Three runs that happen to end alike say little about how much runs differ, so a variance of 0 over few runs
is luck and no certainty. The plays of one run are independent given the recipe, and whatever its games share
(the run itself) only adds. So the variance of a run mean over G games with weights w_g is never below

    max( Σ_g w_g² v_g ,  Σ_g w_g² ½ grain² / (G + 1) )

with v_g the variance over runs of game g's result: on equally hard games the first term is the binomial
p (1 − p) / G, and where games differ it leaves out what tells them apart, which all runs on the same games
share. The second is the binomial variance with half a game each way, p̃ = ½ / (G + 1), for runs whose games
all ended alike. `grain` is how far one play can move a game's result: the range of a result over the plays
of a game.

A difference of two runs that share a seed has the second term alone, twice (half a game each way for both):

    Σ_g w_g² grain² / (G + 1)

about one game. The first would take its variance over pairs for each game, which is all that pairs differ
by where their runs end alike: the test would then find nothing.

This is the one place of that floor: every procedure that uses run means takes them as a `RunMeans`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RunMeans:
    """One number per run. `least` is the least variance of a run mean, in squared units of the values; 0
    where nothing is known about the games behind them, nan where their scale is unknown."""

    values: np.ndarray
    least: float = 0.0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean over runs."""
        return float(self.values.mean())

    @property
    def observed(self) -> float:
        """Sample variance over runs; what rounding leaves of equal numbers is 0. nan for one run."""
        if len(self.values) < 2:
            return float("nan")
        variance = float(self.values.var(ddof=1))
        return variance if variance > 1e-18 * max(1.0, float(np.abs(self.values).max()) ** 2) else 0.0

    @property
    def variance(self) -> float:
        """Variance of a run mean: the observed one, but never below `least`; nan where neither says
        anything."""
        found = max(self.observed, self.least) if self.least == self.least else self.observed
        return found if found > 0 else float("nan")

    @property
    def floored(self) -> bool:
        """Whether the games' chance, and not the spread over runs, is what the variance is."""
        return len(self) > 1 and self.variance > self.observed


def run_means(values: Any) -> RunMeans:
    """`values` as a sample: a `RunMeans` as it is, plain numbers without a floor."""
    return values if isinstance(values, RunMeans) else RunMeans(np.asarray(values, float))


def least_variance(values: np.ndarray, weights: np.ndarray, grain: float = 1.0) -> float:
    """Least variance of a run mean, from one recipe's [runs, games] results on the same games (nan: not
    known).

    `grain` is how far one play can move a result (0: unknown, gives nan). Needs two runs; nan with one.
    """
    if len(values) < 2 or not grain > 0:
        return float("nan")
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    filled = np.where(known, values, 0.0)
    centre = filled.sum(axis=0) / np.maximum(counts, 1)
    squares = (np.where(known, values - centre, 0.0) ** 2).sum(axis=0)
    told = counts > 1
    by_game = np.divide(squares, counts - 1, out=np.zeros(len(counts)), where=told)
    if told.any():
        by_game[~told] = by_game[told].mean()
    share, prior = _half_a_game(counts > 0, weights, grain)
    return float(max((share * by_game).sum(), prior))


def least_variance_of_pairs(gaps: np.ndarray, weights: np.ndarray, grain: float = 1.0) -> float:
    """Least variance of the difference of two paired runs, from [pairs, games] differences (nan: not known).

    nan with one pair, and where `grain` is unknown (0)."""
    if len(gaps) < 2 or not grain > 0:
        return float("nan")
    return 2 * _half_a_game(~np.isnan(gaps).all(axis=0), weights, grain)[1]


def _half_a_game(known: np.ndarray, weights: np.ndarray, grain: float) -> tuple[np.ndarray, float]:
    """(squared weights of the known games, variance of a mean with half a game each way); nan for no game."""
    games = int(known.sum())
    if not games:
        return np.zeros(len(weights)), float("nan")
    share = weights**2 * known / weights[known].sum() ** 2
    return share, float(share.sum() * 0.5 * grain**2 / (games + 1))

"""Simulated success tables with a known truth, for coverage studies and for power by simulation.

Model: game g is won by run r of method m when  μ_m + game_g + run_r + inter_rg + method×game_mg + noise > 0
with normal terms (a crossed probit model). The noise has sd 1; `seed_sd` is given on the scale readers know,
the sd of a run's true success rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats


@dataclass(frozen=True)
class World:
    """One simulated benchmark: sd of game difficulty, of run × game and of method × game, in noise units."""

    rate: float = 0.55
    """Success rate of the baseline over runs and games."""
    effect: float = 0.0
    """True difference in success rate, method minus baseline."""
    seed_sd: float = 0.04
    games: int = 134
    game_sd: float = 1.5
    run_game_sd: float = 0.5
    method_game_sd: float = 0.4

    @lru_cache(maxsize=256)  # noqa: B019 - a world is a small frozen value
    def run_sd(self, rate: float) -> float:
        """sd of the run term (noise units) that makes the sd of a run's true rate equal `seed_sd`."""
        if self.seed_sd == 0:
            return 0.0
        nodes, mass = np.polynomial.hermite_e.hermegauss(41)
        mass = mass / mass.sum()

        def gap(sd: float) -> float:
            centre = stats.norm.ppf(rate) * np.sqrt(self.inner + sd**2)
            rates = stats.norm.cdf((centre + sd * nodes) / np.sqrt(self.inner))
            return float(np.sqrt(mass @ (rates - mass @ rates) ** 2) - self.seed_sd)

        return float(optimize.brentq(gap, 1e-6, 5.0))

    def draw(self, runs: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """([2, runs, games] of 0 and 1 for baseline and method, true difference on exactly these games)."""
        table, expected = self.draw_arms((self.rate, self.rate + self.effect), runs, rng)
        return table, float(expected[1].mean() - expected[0].mean())

    def draw_arms(
        self, rates: Sequence[float], runs: int, rng: np.random.Generator, repeats: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """One arm per success rate in `rates`, all on the same games.

        Returns ([arms, runs, games] of 0 and 1, with repeats [arms, runs, games, repeats]; [arms, games] true
        chances of a win on exactly these games: the mean over all runs there could be).
        """
        game = rng.normal(0, self.game_sd, self.games)
        tables, expected = [], []
        for rate in rates:
            run_sd = self.run_sd(rate)
            level = stats.norm.ppf(rate) * np.sqrt(self.inner + run_sd**2)
            known = level + game + rng.normal(0, self.method_game_sd, self.games)
            latent = (
                known + rng.normal(0, run_sd, (runs, 1)) + rng.normal(0, self.run_game_sd, (runs, self.games))
            )
            size = (runs, self.games) if repeats == 1 else (runs, self.games, repeats)
            chance = special.ndtr(latent)
            tables.append(rng.random(size) < (chance if repeats == 1 else chance[..., None]))
            expected.append(special.ndtr(known / np.sqrt(1 + run_sd**2 + self.run_game_sd**2)))
        return np.array(tables, float), np.array(expected)

    @property
    def inner(self) -> float:
        """Variance of everything but the run term, in noise units squared."""
        return 1 + self.game_sd**2 + self.run_game_sd**2 + self.method_game_sd**2

    def components(self) -> dict[str, float]:
        """True variance components of one arm at `rate`, per episode, for new games (names as in
        `analysis.variance`)."""
        run_sd = self.run_sd(self.rate)
        level = stats.norm.ppf(self.rate) * np.sqrt(self.inner + run_sd**2)
        games = self.game_sd**2 + self.method_game_sd**2
        within = 1 + run_sd**2 + self.run_game_sd**2
        nodes, mass = np.polynomial.hermite_e.hermegauss(101)
        mass = mass / mass.sum()

        def second_moment(known: float, rest: float) -> float:
            """E of the squared chance, given terms of variance `known`, over the rest."""
            return float(mass @ special.ndtr((level + np.sqrt(known) * nodes) / np.sqrt(rest)) ** 2)

        game = second_moment(games, within) - self.rate**2
        run = self.seed_sd**2
        # Of the chances of two arms on one game only the game itself is common.
        shared = second_moment(self.game_sd**2, within + self.method_game_sd**2) - self.rate**2
        chance = second_moment(games + run_sd**2 + self.run_game_sd**2, 1.0)
        cross = chance - self.rate**2 - game - run
        return {
            "training run": run,
            "game": game,
            "run × game": cross,
            "method × game": 2 * (game - shared),
            "decoding noise": self.rate - chance,
            "run × game + decoding": cross + self.rate - chance,
        }


@dataclass(frozen=True)
class Graded:
    """Graded scores whose mean is linear in the chance of a win: won 100; lost `wrong` with chance
    `wrong_rate`, else some of the part goals at 10 points each. The true mean score follows from the success
    rate."""

    wrong: float = -100.0
    wrong_rate: float = 0.15
    parts: int = 8
    part_rate: float = 0.35

    @property
    def lost_mean(self) -> float:
        """Mean score of a lost episode."""
        return self.wrong_rate * self.wrong + (1 - self.wrong_rate) * 10 * self.parts * self.part_rate

    @property
    def span(self) -> float:
        """From the lowest score to the highest."""
        return 100.0 - min(0.0, self.wrong)

    @property
    def slope(self) -> float:
        """Points of mean score per unit of success rate."""
        return 100.0 - self.lost_mean

    def score(self, won: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Scores of episodes from their wins (0 and 1), same shape."""
        partial = 10.0 * rng.binomial(self.parts, self.part_rate, won.shape)
        lost = np.where(rng.random(won.shape) < self.wrong_rate, self.wrong, partial)
        return np.where(won > 0, 100.0, lost)

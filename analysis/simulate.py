"""Simulated success tables with a known truth, for coverage studies and for power by simulation.

Model: game g is won by run r of method m when  μ_m + game_g + run_r + inter_rg + method×game_mg + noise > 0
with normal terms (a crossed probit model). The noise has sd 1; `seed_sd` is given on the scale readers know,
the sd of a run's true success rate.
"""

from __future__ import annotations

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
        inner = 1 + self.game_sd**2 + self.run_game_sd**2 + self.method_game_sd**2
        nodes, mass = np.polynomial.hermite_e.hermegauss(41)
        mass = mass / mass.sum()

        def gap(sd: float) -> float:
            centre = stats.norm.ppf(rate) * np.sqrt(inner + sd**2)
            rates = stats.norm.cdf((centre + sd * nodes) / np.sqrt(inner))
            return float(np.sqrt(mass @ (rates - mass @ rates) ** 2) - self.seed_sd)

        return float(optimize.brentq(gap, 1e-6, 5.0))

    def draw(self, runs: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """([2, runs, games] of 0 and 1 for baseline and method, true difference on exactly these games)."""
        table, rates = self.draw_arms(runs, rng)
        return table, rates[1] - rates[0]

    def draw_arms(self, runs: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[float, float]]:
        """As `draw`, with the true rate of each arm on exactly these games: the mean over all runs there
        could be."""
        game = rng.normal(0, self.game_sd, self.games)
        table = np.empty((2, runs, self.games))
        truth = []
        for arm, rate in enumerate((self.rate, self.rate + self.effect)):
            run_sd = self.run_sd(rate)
            inner = 1 + self.game_sd**2 + self.run_game_sd**2 + self.method_game_sd**2
            level = stats.norm.ppf(rate) * np.sqrt(inner + run_sd**2)
            known = level + game + rng.normal(0, self.method_game_sd, self.games)
            chance = (
                known + rng.normal(0, run_sd, (runs, 1)) + rng.normal(0, self.run_game_sd, (runs, self.games))
            )
            table[arm] = rng.random((runs, self.games)) < special.ndtr(chance)
            truth.append(float(special.ndtr(known / np.sqrt(1 + run_sd**2 + self.run_game_sd**2)).mean()))
        return table, (truth[0], truth[1])

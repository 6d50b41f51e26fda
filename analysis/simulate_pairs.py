"""Simulated success tables whose runs share their seed's luck, with a known truth.

The crossed probit model of `analysis.simulate.World`; of every term that a seed brings (its run, run ×
game, and the noise of play) a share `correlation` is common to all arms of the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

from analysis.simulate import World


@dataclass(frozen=True)
class PairedWorld:
    """`spreads` multiply the sd of the run term of each arm; arms beyond them have 1."""

    world: World
    correlation: float = 0.9
    spreads: tuple[float, ...] = ()

    def draw(
        self, rates: Sequence[float], runs: int, studies: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """([studies, arms, runs, games] of 0 and 1, [studies, arms, games] true chances of a win on these
        games: the mean over all runs there could be)."""
        world = self.world
        shape, games = (studies, runs, world.games), world.games
        common, own = np.sqrt(self.correlation), np.sqrt(1 - self.correlation)

        def normal(size: tuple[int, ...]) -> np.ndarray:
            return rng.standard_normal(size, dtype=np.float32)

        game = world.game_sd * normal((studies, games))
        shared_run, shared_rest = normal((studies, runs, 1)), normal(shape)
        rest_sd = np.sqrt(1 + world.run_game_sd**2)
        tables, expected = [], []
        for arm, rate in enumerate(rates):
            spread = self.spreads[arm] if arm < len(self.spreads) else 1.0
            mine = replace(world, seed_sd=world.seed_sd * spread)
            run_sd = mine.run_sd(rate)
            level = stats.norm.ppf(rate) * np.sqrt(mine.inner + run_sd**2)
            known = level + game + world.method_game_sd * normal((studies, games))
            run = run_sd * (common * shared_run + own * normal((studies, runs, 1)))
            # run × game and noise are both new for every run and game, so they are drawn as one.
            rest = rest_sd * (common * shared_rest + own * normal(shape))
            tables.append(known[:, None, :] + run + rest > 0)
            expected.append(special.ndtr(known / np.sqrt(rest_sd**2 + run_sd**2)))
        return np.stack(tables, axis=1), np.stack(expected, axis=1)

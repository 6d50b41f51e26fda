"""How runs of two methods are compared: as independent, as pairs by seed, or in blocks of all methods.

Runs of one seed play the same games with the same random numbers and end alike, so what a seed's luck does
to both falls out of their difference. Which design is used is chosen before the data (in a plan, or by
`--design`), because a paired test with few seeds is worse than Welch's where runs are not alike.

Each design answers the same questions about one table of runs × games: the test of the recipe on this
benchmark, its variance with games random too, the interval on new games, and the permutation of labels or
signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import stats

from analysis.blocked import OWN, Blocks
from analysis.bootstrap import (
    TwoWay,
    calibrated,
    crossed_variance,
    crossed_variance_of_pairs,
    resample_rows,
    resampled_run_means,
    two_way,
)
from analysis.cells import Cells
from analysis.errors import Refusal
from analysis.question import DESIGNS
from analysis.significance import TTest, paired, permutation, sign_flips, welch

GAMES_CHANCE = "games: these runs differ by less than their games leave to chance"
PAIRS_CHANCE = "games: these pairs differ by less than their games leave to chance"
POOLED = "the rest of all methods after seeds"
MIN_RUNS_PERMUTATION = 5
"""Fewer runs a side cannot reach p < 0.05 by permutation with room for a correction (3 against 3: p ≥
0.10)."""
MIN_PAIRS_SIGN_FLIPS = 6
"""Fewer pairs cannot reach p < 0.05 by flips of signs (5: p ≥ 0.0625)."""


@dataclass(frozen=True)
class Tested:
    """A test of two recipes on this benchmark. `spread` says what its standard error is made of;
    `correlation` is that of two comparisons with one baseline (Dunnett's), nan without blocks; `p_pooled` is
    that of the blocks with the rest of all methods, whatever was used."""

    test: TTest
    spread: str
    correlation: float = float("nan")
    p_pooled: float = float("nan")


class Design(Protocol):
    """Every method below is about `method` − `baseline` in one table."""

    name: str
    title: str
    """The test, as tables name it."""

    def rows(self, table: Cells, method: str, baseline: str) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the runs that are compared."""
        ...

    def test(self, table: Cells, method: str, baseline: str, level: float = 0.95) -> Tested:
        """The recipe on this benchmark."""
        ...

    def crossed(self, table: Cells, method: str, baseline: str) -> tuple[float, float, float]:
        """(difference, standard error, degrees of freedom) with runs and games random."""
        ...

    def interval(
        self, table: Cells, method: str, baseline: str, means: np.ndarray, level: float, seed: Any
    ) -> TwoWay:
        """The recipe on new games; `means` [draws, runs] are of resampled games."""
        ...

    def permuted(self, table: Cells, method: str, baseline: str) -> float:
        """p of the permutation test; nan where there are too few runs for one."""
        ...


class Independent:
    """Welch's t on run means."""

    name, title = "independent", "Welch on run means"

    def rows(self, table: Cells, method: str, baseline: str) -> tuple[np.ndarray, np.ndarray]:
        return table.rows(method), table.rows(baseline)

    def test(self, table: Cells, method: str, baseline: str, level: float = 0.95) -> Tested:
        mine, base = table.sample(method), table.sample(baseline)
        spread = GAMES_CHANCE if mine.floored or base.floored else "runs"
        return Tested(welch(mine, base, level), spread)

    def crossed(self, table: Cells, method: str, baseline: str) -> tuple[float, float, float]:
        a, b = self.rows(table, method, baseline)
        values = table.values
        variance, df, _ = crossed_variance(values[a], values[b], table.strata, table.weights, table.grain)
        means = table.run_means()
        return float(means[a].mean() - means[b].mean()), float(np.sqrt(variance)), df

    def interval(
        self, table: Cells, method: str, baseline: str, means: np.ndarray, level: float, seed: Any
    ) -> TwoWay:
        rows = self.rows(table, method, baseline)
        return two_way(
            table.values,
            *rows,
            table.strata,
            table.weights,
            means,
            len(means),
            level,
            seed,
            grain=table.grain,
        )

    def permuted(self, table: Cells, method: str, baseline: str) -> float:
        mine, base = table.sample(method), table.sample(baseline)
        enough = min(len(mine), len(base)) >= MIN_RUNS_PERMUTATION
        return permutation(mine, base)[0] if enough else float("nan")


class Paired:
    """Student's t on the differences of runs that share a seed."""

    name, title = "paired", "paired t on seed differences"

    def rows(self, table: Cells, method: str, baseline: str) -> tuple[np.ndarray, np.ndarray]:
        return table.pairs(method, baseline)

    def test(self, table: Cells, method: str, baseline: str, level: float = 0.95) -> Tested:
        sample, _ = table.gaps(*self.rows(table, method, baseline))
        return Tested(paired(sample, level), PAIRS_CHANCE if sample.floored else "pairs of runs")

    def crossed(self, table: Cells, method: str, baseline: str) -> tuple[float, float, float]:
        test = self.test(table, method, baseline).test
        _, by_game = table.gaps(*self.rows(table, method, baseline))
        if not test.se > 0:
            return test.difference, float("nan"), float("nan")
        variance, df, _ = crossed_variance_of_pairs(
            by_game, table.strata, table.weights, table.pair_grain, test.se**2, test.df
        )
        # With two or three pairs the run part can come out small by luck, and the games' many degrees of
        # freedom would then decide: on new games nothing is surer than on these.
        ends = (float(np.sqrt(variance)), df), (test.se, test.df)
        return test.difference, *max(ends, key=lambda end: end[0] * stats.t.ppf(0.975, end[1]))

    def interval(
        self, table: Cells, method: str, baseline: str, means: np.ndarray, level: float, seed: Any
    ) -> TwoWay:
        a, b = table.pairs(method, baseline)
        difference, se, df = self.crossed(table, method, baseline)
        drawn = resample_rows(means[:, a] - means[:, b], np.random.default_rng(seed))
        # The draws' shape is luck with so few pairs: an interval with it covers too little.
        return calibrated(difference, drawn, se**2, df, level, shaped=False)

    def permuted(self, table: Cells, method: str, baseline: str) -> float:
        sample, _ = table.gaps(*table.pairs(method, baseline))
        return sign_flips(sample)[0] if len(sample) >= MIN_PAIRS_SIGN_FLIPS else float("nan")


class Blocked(Paired):
    """Analysis of variance over all methods, a block for each seed (`analysis.blocked`)."""

    name, title = "blocked", "seed-blocked ANOVA"

    def test(self, table: Cells, method: str, baseline: str, level: float = 0.95) -> Tested:
        names, counts = np.unique(table.methods.astype(str), return_counts=True)
        rows = np.flatnonzero(np.isin(table.methods.astype(str), names[counts > 1]))
        means = table.run_means()[rows]
        blocks = Blocks(means, [str(m) for m in table.methods[rows]], [int(s) for s in table.seeds[rows]])
        sample, _ = table.gaps(*table.pairs(method, baseline))
        test, own = blocks.contrast(method, baseline, sample.least, level)
        weights = blocks.weights(method, baseline)
        if np.isnan(weights).any():
            raise Refusal(
                f"{method} and {baseline} are linked by no seed on {table.env} {table.split}, so blocks say "
                "nothing about them; run them with the same seeds."
            )
        scale = float(weights @ weights)
        at_games = sample.least == sample.least and test.se**2 <= sample.least / 2 * scale * (1 + 1e-9)
        spread = PAIRS_CHANCE if at_games else OWN if own else POOLED
        pooled = self._pooled(blocks, test, scale)
        return Tested(test, spread, blocks.correlation(baseline), pooled)

    @staticmethod
    def _pooled(blocks: Blocks, test: TTest, scale: float) -> float:
        se = float(np.sqrt(blocks.mean_square * scale))
        return float(2 * stats.t.sf(abs(test.difference) / se, blocks.df)) if se > 0 else float("nan")


_DESIGNS: dict[str, Design] = {d.name: d for d in (Independent(), Paired(), Blocked())}


def design_of(name: str) -> Design:
    """The design of a name. Raises Refusal for another one."""
    if name not in _DESIGNS:
        raise Refusal(f"design is {', '.join(DESIGNS)}, not {name!r}.")
    return _DESIGNS[name]


def error_at_margin(
    design: Design, table: Cells, method: str, baseline: str, se: float, margin: float
) -> float:
    """The standard error that a difference is held to where it is tested against a margin.

    Two methods whose pairs differ by the margin m end otherwise on at least that share of the games, all in
    one direction where it is least: a skewed count, of which few pairs show too small a spread too often
    (false equivalence in more than 5 % of the studies: docs/evidence/coverage.md, "Pairs that hardly
    differ"). So of pairs the variance is never below the binomial one of that share, Σ w² m (1 − m) a pair.
    Wins and losses only; independent runs and graded results keep their own.
    """
    if design.name == "independent" or table.grain != 1 or not 0 < margin < 1:
        return se
    pairs = len(design.rows(table, method, baseline)[0])
    return float(max(se, np.sqrt((table.weights**2).sum() * margin * (1 - margin) / max(pairs, 1))))


def resampled(table: Cells, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[draws, runs] means on resampled games; one resample serves all runs and methods."""
    return resampled_run_means(table.values, table.strata, table.weights, draws, rng)

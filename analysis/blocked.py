"""Seed-blocked analysis of variance: run means of all methods of a study, a block for each seed.

Model  mean[method, seed] = method + seed + rest.  A seed's luck that all methods share falls out of every
comparison, and the rest's spread is estimated from all methods together, with (methods − 1)(seeds − 1)
degrees of freedom where no run is missing (Fisher 1935; least squares where some are).

Pooling is only right where the rest spreads alike. A method with twice the spread of the others would be
found different from its equal too often (docs/evidence/coverage.md, "always pooled"). So where the rest of
the two compared methods is larger than the pooled one, their own is taken, with Satterthwaite's degrees of
freedom: of each method the unbiased estimate from the squared residuals (Grubbs 1948; Rao's MINQUE for
missing runs), and together not less than their pairs show, with the pairs' degrees of freedom then, since a
method that spreads more also answers more to the seed. Two methods alone are the paired t test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy import special

from analysis.significance import TTest, t_of

OWN = "runs of these two methods: their rest is larger than that of all"
"""Where the standard error comes from, when the pooled one would be too small."""


@dataclass(frozen=True)
class Layout:
    """Which runs there are: `names` of the methods, the pseudoinverse of the design matrix (a column for
    each method, and for each seed but the first), what takes residuals, its degrees of freedom, `member`
    [methods, runs], and what turns squared residuals of each method into its variance (None: nothing
    does)."""

    names: tuple[str, ...]
    matrix: np.ndarray
    inverse: np.ndarray
    residual_maker: np.ndarray
    df: int
    member: np.ndarray
    unmix: np.ndarray | None

    def weights(self, method: str, baseline: str) -> np.ndarray:
        """The difference of two methods as a weighted sum of run means."""
        wanted = np.zeros(self.matrix.shape[1])
        wanted[self.names.index(method)], wanted[self.names.index(baseline)] = 1.0, -1.0
        if not np.allclose(wanted @ self.inverse @ self.matrix, wanted, atol=1e-8):
            return np.full(len(self.matrix), np.nan)
        return np.asarray(wanted @ self.inverse)


@lru_cache(maxsize=64)
def layout_of(methods: tuple[str, ...], seeds: tuple[Any, ...]) -> Layout:
    """The layout of runs, one for each of these methods and seeds."""
    names = tuple(sorted(set(methods)))
    by_method = np.equal.outer(np.array(names, object), np.array(methods, object)).astype(float)
    by_seed = np.equal.outer(np.array(seeds), np.array(sorted(set(seeds))[1:])).astype(float)
    matrix = np.hstack([by_method.T, by_seed])
    inverse = np.linalg.pinv(matrix)
    residual_maker = np.eye(len(matrix)) - matrix @ inverse
    expected = by_method @ residual_maker**2 @ by_method.T
    known = len(names) > 2 and np.linalg.matrix_rank(expected, tol=1e-9) == len(names)
    unmix = np.linalg.inv(expected) if known else None
    df = round(float(np.trace(residual_maker)))
    return Layout(names, matrix, inverse, residual_maker, df, by_method, unmix)


@dataclass(frozen=True)
class Blocks:
    """Run means with their method and seed, one run for each."""

    means: np.ndarray
    methods: Sequence[str]
    seeds: Sequence[Any]

    @cached_property
    def names(self) -> list[str]:
        """The methods, sorted."""
        return sorted(set(self.methods))

    @cached_property
    def layout(self) -> Layout:
        """What follows from which runs there are, whatever they ended as."""
        return layout_of(tuple(self.methods), tuple(self.seeds))

    @property
    def df(self) -> int:
        """Degrees of freedom of the rest."""
        return self.layout.df

    @property
    def mean_square(self) -> float:
        """Mean square of the rest; nan without degrees of freedom."""
        rest = self.layout.residual_maker @ self.means
        return float(rest @ rest / self.df) if self.df > 0 else float("nan")

    @cached_property
    def own_variances(self) -> np.ndarray | None:
        """Variance of the rest of each method in `names`; None where they cannot be told apart (two
        methods)."""
        layout = self.layout
        if layout.unmix is None:
            return None
        squares = layout.member @ (layout.residual_maker @ self.means) ** 2
        return np.maximum(layout.unmix @ squares, 0.0)

    def weights(self, method: str, baseline: str) -> np.ndarray:
        """The difference as a weighted sum of the run means; nan where no chain of shared seeds links
        them."""
        return self.layout.weights(method, baseline)

    def contrast(
        self, method: str, baseline: str, least: float = float("nan"), level: float = 0.95
    ) -> tuple[TTest, bool]:
        """(test of method − baseline, whether the two methods' own rest decided).

        `least` is the least variance of a paired difference (`Cells.gaps`): the standard error is never below
        what it leaves.
        """
        a = self.weights(method, baseline)
        variance, df, own = self.mean_square * float(a @ a), float(self.df), False
        if self.own_variances is not None and variance == variance:
            counts, shares = self.layout.member.sum(axis=1) - 1.0, self.layout.member @ a**2
            parts = shares * self.own_variances
            if parts.sum() > variance * (1 + 1e-9):
                pair = counts[[self.names.index(method), self.names.index(baseline)]]
                terms = (parts**2 / np.maximum(counts, 1)).sum()
                df = float(np.clip(parts.sum() ** 2 / terms, min(pair), pair.sum()))
                variance, own = float(parts.sum()), True
                half, pairs = self._of_pairs(method, baseline)
                if half * float(a @ a) > variance:
                    variance, df = half * float(a @ a), min(df, pairs - 1.0)
        floor = least / 2 * float(a @ a)
        variance = max(variance, floor) if floor == floor else variance
        if variance <= 1e-18 * max(1.0, float(np.abs(self.means).max()) ** 2):
            variance = float("nan")
        return t_of(float(a @ self.means), float(np.sqrt(variance)), df, level), own

    def _of_pairs(self, method: str, baseline: str) -> tuple[float, int]:
        """(half the variance of the two methods' seed differences, their number); 0 where fewer than two are
        shared."""
        mine, theirs = (
            {
                seed: mean
                for name, seed, mean in zip(self.methods, self.seeds, self.means, strict=True)
                if name == one
            }
            for one in (method, baseline)
        )
        gaps = [mine[seed] - theirs[seed] for seed in sorted(set(mine) & set(theirs))]
        return (float(np.var(gaps, ddof=1)) / 2 if len(gaps) > 1 else 0.0), len(gaps)

    def correlation(self, baseline: str) -> float:
        """The smallest correlation of two comparisons with the baseline; 0.5 where no run is missing."""
        rows = np.array([self.weights(name, baseline) for name in self.names if name != baseline])
        norms = np.sqrt((rows**2).sum(axis=1))
        found = rows @ rows.T / np.outer(norms, norms)
        off = found[~np.eye(len(found), dtype=bool)]
        return float(np.clip(off.min(), 0.0, 1.0)) if len(off) else 0.5


def dunnett(t: float, df: float, comparisons: int, correlation: float = 0.5) -> float:
    """Two-sided p of one of several comparisons with a baseline, adjusted for all (Dunnett 1955): the chance
    that the largest of `comparisons` |t| with `df` degrees of freedom exceeds |t|.

    All pairs of comparisons have the same `correlation` (0.5 for equally many runs). By Gauss-Legendre
    quadrature over the common standard error and the common part of the numerators.
    """
    if np.isnan(t):
        return float("nan")
    common, mass = np.polynomial.hermite_e.hermegauss(80)
    mass = mass / mass.sum()
    nodes, weight = np.polynomial.legendre.leggauss(120)
    # Over quantiles of the standard error, denser at both ends: a rare small one decides the tails.
    place = (nodes + 1) / 2
    weight = weight / 2 * 30 * (place * (1 - place)) ** 2
    quantiles = place**3 * (10 - 15 * place + 6 * place**2)
    scale = np.sqrt(2 * special.gammaincinv(df / 2, quantiles) / df)
    reach = abs(t) * scale[:, None]
    rest = np.sqrt(1 - correlation)
    shift = np.sqrt(correlation) * common[None, :]
    inside = special.ndtr((reach + shift) / rest) - special.ndtr((-reach + shift) / rest)
    return float(np.clip(weight @ (1 - inside**comparisons) @ mass, 0.0, 1.0))


def dunnett_of_p(p: float, df: float, comparisons: int, correlation: float = 0.5) -> float:
    """The same from the p of a single two-sided t test."""
    if np.isnan(p):
        return float("nan")
    return max(p, dunnett(float(-special.stdtrit(df, p / 2)), df, comparisons, correlation)) if p > 0 else 0.0

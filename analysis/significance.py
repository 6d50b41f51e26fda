"""Tests on run means and on pairs of checkpoints, and corrections for several of them.

Invariant: a test whose unit is the run takes one number per run. Only McNemar takes games, and its result
speaks of two checkpoints, never of two recipes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from scipy import stats

from analysis.errors import Refusal
from analysis.runmeans import run_means
from sage.records.intervals import welch_error


@dataclass(frozen=True)
class TTest:
    """A two-sided t test of a difference a − b, and its interval."""

    difference: float
    se: float
    df: float
    t: float
    p: float
    low: float
    high: float


def t_of(difference: float, se: float, df: float, level: float = 0.95) -> TTest:
    """The test of a difference whose standard error has `df` degrees of freedom; nan where `se` is."""
    if not se > 0:
        return TTest(difference, *[float("nan")] * 6)
    t, half = difference / se, float(stats.t.ppf(0.5 + level / 2, df)) * se
    return TTest(
        difference, se, df, t, float(2 * stats.t.sf(abs(t), df)), difference - half, difference + half
    )


def welch(a: Any, b: Any, level: float = 0.95) -> TTest:
    """Welch's test on run means (Welch 1947; Satterthwaite's degrees of freedom). Needs two runs on both
    sides; equal to scipy's `ttest_ind(equal_var=False)` where the runs of both sides differ by more than
    their games' chance (`RunMeans.variance`).

    `a` and `b` are `RunMeans`, or plain numbers, of which nothing but their spread is known: where neither
    side of those varies the difference has no measured error, and everything but the difference is nan.
    """
    a, b = run_means(a), run_means(b)
    difference, nan = a.mean - b.mean, float("nan")
    variances = [side.variance for side in (a, b)]
    if len(a) < 2 or len(b) < 2 or np.isnan(variances).all():
        return t_of(difference, nan, nan)
    va, vb = (float(variance) for variance in np.nan_to_num(variances))
    return t_of(difference, *welch_error(va, len(a), vb, len(b)), level)


def paired(differences: Any, level: float = 0.95) -> TTest:
    """Student's test that the mean of paired differences is 0 (scipy's `ttest_rel`). `differences` are
    `RunMeans`, one value for each pair, or plain numbers; everything but the difference is nan below two."""
    sample = run_means(differences)
    if len(sample) < 2:
        return t_of(sample.mean, float("nan"), float("nan"))
    return t_of(sample.mean, float(np.sqrt(sample.variance / len(sample))), len(sample) - 1.0, level)


def sign_flips(differences: Any, draws: int = 100_000, seed: int = 0) -> tuple[float, bool]:
    """Sign-flip test that paired differences are symmetric about 0: (p, exact). Two-sided, statistic |mean|.

    All 2^n flips are enumerated up to 17 pairs, else `draws` random ones with the +1 of Davison and Hinkley
    (1997). Its smallest p is 0.25 for 3 pairs, 0.0625 for 5 and 0.031 for 6.
    """
    values = run_means(differences).values
    slack = 1e-12 * max(1.0, float(np.abs(values).max()))
    exact = len(values) <= 17
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, len(values)))
    hits = int((np.abs(signs @ values) >= abs(values.sum()) - slack * len(values)).sum())
    return (hits / len(signs), True) if exact else ((hits + 1) / (len(signs) + 1), False)


def permutation(a: Any, b: Any, draws: int = 100_000, seed: int = 0) -> tuple[float, bool]:
    """Run-label permutation test of equal means: (p, exact). Two-sided, statistic |mean a − mean b|.

    All C(n_a + n_b, n_a) relabellings are enumerated up to 200,000, else `draws` random ones with the +1 of
    Davison and Hinkley (1997). Its smallest p is 0.10 for 3 against 3 runs, 0.008 for 5 against 5.
    """
    a, b = run_means(a).values, run_means(b).values
    pooled = np.concatenate([a, b])
    size, total = len(a), len(pooled)
    observed = abs(a.mean() - b.mean())
    slack = 1e-12 * max(1.0, np.abs(pooled).max())
    if comb(total, size) <= 200_000:
        sums = _relabellings(total, size) @ pooled
        exact = True
    else:
        rng = np.random.default_rng(seed)
        order = rng.random((draws, total)).argpartition(size, axis=1)[:, :size]
        sums = pooled[order].sum(axis=1)
        exact = False
    difference = np.abs(sums / size - (pooled.sum() - sums) / (total - size))
    hits = int((difference >= observed - slack).sum())
    return (hits / len(sums), True) if exact else ((hits + 1) / (len(sums) + 1), False)


@lru_cache(maxsize=4)
def _relabellings(total: int, size: int) -> np.ndarray:
    """[C(total, size), total] of 0 and 1: which runs each relabelling calls a."""
    chosen = np.array(list(combinations(range(total), size)))
    member = np.zeros((len(chosen), total))
    np.put_along_axis(member, chosen, 1.0, axis=1)
    return member


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar p from the discordant games (binomial with 1/2); two checkpoints, these
    games."""
    n = only_a + only_b
    return 1.0 if n == 0 else float(min(1.0, 2 * stats.binom.cdf(min(only_a, only_b), n, 0.5)))


def tost(a: Any, b: Any, margin: float) -> float:
    """p of equivalence within ±margin: two one-sided Welch tests (Schuirmann 1987), the larger p.

    Raises Refusal where the margin is not positive. nan where `welch` knows no error."""
    result = welch(a, b)
    return equivalence(result.difference, result.se, result.df, margin)


def t_test(difference: float, se: float, df: float) -> float:
    """Two-sided p of a difference with a standard error of `df` degrees of freedom."""
    return float(2 * stats.t.sf(abs(difference / se), df))


def equivalence(difference: float, se: float, df: float, margin: float) -> float:
    """The larger p of two one-sided t tests (Schuirmann 1987). Raises Refusal where the margin is not
    positive."""
    _positive(margin)
    lower = stats.t.sf((difference + margin) / se, df)
    upper = stats.t.cdf((difference - margin) / se, df)
    return float(max(lower, upper))


def non_inferiority(a: Any, b: Any, margin: float) -> float:
    """One-sided p of "mean a lies less than `margin` below mean b": Welch on run means, shifted by the
    margin. Raises Refusal where the margin is not positive."""
    result = welch(a, b)
    return worse_by(result.difference, result.se, result.df, margin)


def worse_by(difference: float, se: float, df: float, margin: float) -> float:
    """One-sided p of "the difference lies above −margin". Raises Refusal where the margin is not positive."""
    _positive(margin)
    return float(stats.t.sf((difference + margin) / se, df))


def _positive(margin: float) -> None:
    if not margin > 0:
        raise Refusal(f"A margin is a positive number in the metric's unit, such as 0.05, not {margin:g}.")


def two_proportions(wins_a: int, n_a: int, wins_b: int, n_b: int) -> tuple[float, float]:
    """z and two-sided p of a − b for independent rates, pooled variance (statsmodels'
    `proportions_ztest`)."""
    pooled = (wins_a + wins_b) / (n_a + n_b)
    se = float(np.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b)))
    if se == 0:
        return 0.0, 1.0
    z = (wins_a / n_a - wins_b / n_b) / se
    return float(z), float(2 * stats.norm.sf(abs(z)))


def holm(p: Any) -> np.ndarray:
    """Holm's step-down adjusted p values; controls the family-wise error. nan stays nan and does not
    count."""
    return _adjust(p, lambda ordered, m: np.maximum.accumulate(ordered * (m - np.arange(m))))


def benjamini_hochberg(p: Any) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p values; controls the false discovery rate. nan stays nan."""
    return _adjust(
        p, lambda ordered, m: np.minimum.accumulate((ordered * m / np.arange(1, m + 1))[::-1])[::-1]
    )


def _adjust(p: Any, rule: Any) -> np.ndarray:
    p = np.asarray(p, float)
    result = np.full(p.shape, np.nan)
    valid = np.flatnonzero(~np.isnan(p))
    if len(valid):
        order = valid[np.argsort(p[valid], kind="stable")]
        result[order] = np.minimum(rule(p[order], len(order)), 1.0)
    return result

"""Intervals for one rate, one mean and the difference of two rates. Rates are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import stats

from analysis.runmeans import run_means
from sage.records.intervals import wilson


def z_value(level: float) -> float:
    """Two-sided normal quantile: 1.96 for level 0.95."""
    return float(stats.norm.ppf(0.5 + level / 2))


def wilsons(wins: Iterable[int], n: Iterable[int], level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson intervals of many rates (this checkpoint, games like these): arrays of lower and upper
    bounds."""
    bounds = [wilson(int(w), int(m), level) for w, m in zip(wins, n, strict=True)]
    low, high = zip(*bounds, strict=True) if bounds else ((), ())
    return np.array(low), np.array(high)


def t_interval(values: Any, level: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean of run means; the run is the unit. Undefined (nan) below two runs, and
    for plain numbers that do not vary; `RunMeans` know how little they can vary."""
    sample = run_means(values)
    if len(sample) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.5 + level / 2, len(sample) - 1) * np.sqrt(sample.variance / len(sample))
    return float(sample.mean - half), float(sample.mean + half)


def newcombe(wins_a: int, n_a: int, wins_b: int, n_b: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference a − b of two independent rates (Newcombe 1998, method 10: hybrid Wilson).

    Equals statsmodels' `confint_proportions_2indep(method="newcomb")`.
    """
    a, b = wins_a / n_a, wins_b / n_b
    low_a, high_a = wilson(wins_a, n_a, level)
    low_b, high_b = wilson(wins_b, n_b, level)
    low = a - b - np.hypot(a - low_a, high_b - b)
    high = a - b + np.hypot(high_a - a, b - low_b)
    return float(low), float(high)


def newcombe_paired(
    both: int, only_a: int, only_b: int, neither: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the difference a − b of two rates on the same games (Newcombe 1998, paired method 10)."""
    n = both + only_a + only_b + neither
    wins_a, wins_b = both + only_a, both + only_b
    a, b = wins_a / n, wins_b / n
    low_a, high_a = wilson(wins_a, n, level)
    low_b, high_b = wilson(wins_b, n, level)
    product = wins_a * (n - wins_a) * wins_b * (n - wins_b)
    surplus = float(both * neither - only_a * only_b)
    # Newcombe's continuity correction of phi, only where phi is positive.
    surplus = max(surplus - n / 2, 0.0) if surplus > 0 else surplus
    phi = surplus / np.sqrt(product) if product else 0.0

    def reach(x: float, y: float) -> float:
        return float(np.sqrt(max(x**2 - 2 * phi * x * y + y**2, 0.0)))

    return a - b - reach(a - low_a, high_b - b), a - b + reach(high_a - a, b - low_b)

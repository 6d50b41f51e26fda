"""The one home of the Wilson interval and of Welch's error: pure Python, so that terminal and analysis share
them."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, without continuity correction (Wilson 1927, JASA 22:209).

    Answers "this checkpoint, on games like these": games are the random unit, the checkpoint is fixed. It
    says nothing about other seeds. n = 0 gives (0, 1): nothing is known. Counts may be effective numbers.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion.")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate, z2 = successes / n, z * z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    # At 0 of n and n of n the bound is exactly 0 or 1; rounding would leave it 1e-17 beside.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def welch_error(variance_a: float, runs_a: int, variance_b: float, runs_b: int) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a difference of two means of runs: Welch 1947, Biometrika
    34:28, with Satterthwaite's degrees of freedom.

    Takes the variance of one run of each side; two runs or more on both, and not both variances 0.
    """
    a, b = variance_a / runs_a, variance_b / runs_b
    return sqrt(a + b), (a + b) ** 2 / (a**2 / (runs_a - 1) + b**2 / (runs_b - 1))

"""What a test can see: power and minimal detectable effects, from a standard error. The tables are those of
`analysis.power_designs`.

The design is two methods with `runs` runs each, all on the same `games` games, tested by Welch's t on run
means. The variance of one run mean is  run_sd² + residual / games,  residual being run × game plus decoding
noise per episode. For the benchmark as it is, the games are fixed and nothing more is added; for new games,
twice-counted method × game spread `method_game_var / games` is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from analysis.errors import Refusal


def power_of(effect: float, se: float, df: float, alpha: float = 0.05) -> float:
    """Power of a two-sided t-test: `effect` and its standard error in one unit (noncentral t; Cohen 1988)."""
    if se == 0:
        return 1.0 if effect else alpha
    critical = float(stats.t.ppf(1 - alpha / 2, df))
    shift = abs(effect / se)
    # scipy's noncentral t gives nan in tails too small to matter.
    upper = float(stats.nct.sf(critical, df, shift))
    lower = float(stats.nct.cdf(-critical, df, shift))
    return (1.0 if np.isnan(upper) else upper) + (0.0 if np.isnan(lower) else lower)


def detectable(se: float, df: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true effect that the test finds with `power`, in the unit of `se`."""
    if not se > 0:
        return 0.0 if se == 0 else float("nan")
    return _smallest(lambda effect: power_of(effect, se, df, alpha), se, power)


def _smallest(power_at: Callable[[float], float], se: float, power: float) -> float:
    if not 0 < power < 1:
        raise Refusal(f"Power must lie between 0 and 1, not {power}.")
    upper = 3.0 * se
    while power_at(upper) < power:
        upper *= 1.5
    return float(optimize.brentq(lambda effect: power_at(effect) - power, 0.0, upper, rtol=1e-6))


def welch_power(effect: float, se: float, runs: int, alpha: float = 0.05) -> float:
    """Power of Welch's test before the runs: `runs` a side, equal spread, `se` the true standard error.

    Given how the two sample variances share their sum, Welch's statistic is a noncentral t with 2·runs − 2
    degrees of freedom, but is held against the quantile of the fewer degrees that the test then estimates;
    the share is Beta distributed. With 3 runs that costs 5 to 10 points of power against Student's test.
    """
    if se == 0:
        return 1.0 if effect else alpha
    n = runs - 1
    share = stats.beta.ppf((np.arange(32) + 0.5) / 32, n / 2, n / 2)
    critical = stats.t.ppf(1 - alpha / 2, n / (share**2 + (1 - share) ** 2))
    shift = abs(effect / se)
    # scipy's noncentral t gives nan in tails too small to matter.
    upper = np.nan_to_num(stats.nct.sf(critical, 2 * n, shift), nan=1.0)
    lower = np.nan_to_num(stats.nct.cdf(-critical, 2 * n, shift), nan=0.0)
    return float((upper + lower).mean())


def plannable(se: float, runs: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true effect that Welch's test with `runs` a side finds with `power`, in the unit of `se`."""
    if not se > 0:
        return 0.0 if se == 0 else float("nan")
    return _smallest(lambda effect: welch_power(effect, se, runs, alpha), se, power)


def standard_error(
    runs: int,
    games: int,
    run_sd: float,
    residual: float = 0.0,
    method_game_var: float = 0.0,
    new_games: bool = False,
    correlation: float = 0.0,
) -> float:
    """Standard error of the difference of two methods' means with `runs` runs each on the same `games`
    games. `correlation` is that of the run means of one seed, where the design uses it."""
    variance = 2 * (run_sd**2 + residual / games) * (1 - correlation) / runs
    if new_games:
        variance += 2 * method_game_var / games
    return float(np.sqrt(variance))


GAME_SHARE = 0.5
"""Of the variance of an episode that games explain, where nobody knows better."""


def binomial_residual(rate: float) -> float:
    """Variance per episode that remains within a game: rate (1 − rate), of which games explain half."""
    return rate * (1 - rate) * (1 - GAME_SHARE)

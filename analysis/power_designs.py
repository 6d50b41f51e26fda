"""What each design can see: detectable effects and seeds needed, for independent, paired and blocked runs.

`Var(difference) = 2 (run_sd² + residual/games) (1 − correlation) / runs`, with correlation 0 where the design
does not use it. The paired test is Student's with runs − 1 degrees of freedom. The blocked one takes the
larger of the pooled rest and that of the two methods (`analysis.blocked`); its power is counted over
simulated studies of normal runs with equal spreads, from a fixed seed, and is known to about 1 % of the
effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from analysis.power import (
    binomial_residual,
    detectable,
    plannable,
    power_of,
    standard_error,
    welch_power,
)

SIMULATED = 8000
MANY_RUNS = 40
"""From here on a blocked study is planned as a paired t test with twice the degrees of freedom."""


@lru_cache(maxsize=256)
def _blocked_studies(methods: int, runs: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """(differences, half-widths) of simulated studies without an effect, in standard errors."""
    rng = np.random.default_rng([17, methods, runs])
    y = rng.standard_normal((SIMULATED, methods, runs))
    rest = (
        y - y.mean(axis=1, keepdims=True) - y.mean(axis=2, keepdims=True) + y.mean(axis=(1, 2), keepdims=True)
    )
    squares = (rest**2).sum(axis=2) / (runs - 1)
    pooled, df = squares.sum(axis=1) / (methods - 1), float((methods - 1) * (runs - 1))
    own = np.maximum(methods / (methods - 2) * (squares[:, :2] - pooled[:, None] / methods), 0.0)
    mean = own.mean(axis=1)
    own_df = np.clip(
        4 * mean**2 / np.maximum((own**2).sum(axis=1) / (runs - 1), 1e-300), runs - 1, 2 * (runs - 1)
    )
    of_pairs = (y[:, 0] - y[:, 1]).var(axis=1, ddof=1) / 2
    is_own = mean > pooled
    reach = np.where(is_own, stats.t.ppf(1 - alpha / 2, own_df), stats.t.ppf(1 - alpha / 2, df))
    gaps = (y[:, 0].mean(axis=1) - y[:, 1].mean(axis=1)) / np.sqrt(2 / runs)
    return gaps, reach * np.sqrt(np.where(is_own, np.maximum(mean, of_pairs), pooled))


def power_in(design: str, effect: float, se: float, runs: int, methods: int, alpha: float = 0.05) -> float:
    """Power of the design's test; `effect` and its true standard error in one unit."""
    if se == 0:
        return 1.0 if effect else alpha
    if design == "independent":
        return welch_power(effect, se, runs, alpha)
    if design == "paired" or methods < 3:
        return power_of(effect, se, runs - 1, alpha)
    if runs >= MANY_RUNS:
        return power_of(effect, se, 2 * (runs - 1), alpha)
    gaps, half = _blocked_studies(methods, runs, alpha)
    return float((np.abs(gaps + effect / se) > half).mean())


def plannable_in(
    design: str, se: float, runs: int, methods: int, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true effect that the design's test finds with `power`, in the unit of `se`."""
    if not se > 0 or design == "independent":
        return plannable(se, runs, alpha, power)
    if design == "paired" or methods < 3 or runs >= MANY_RUNS:
        return detectable(se, (runs - 1) * (1 if design == "paired" or methods < 3 else 2), alpha, power)
    gaps, half = _blocked_studies(methods, runs, alpha)
    # A study finds a positive effect from here on; the other side is of no account at this power.
    return float(np.quantile(half - gaps, power)) * se


def detectable_table(
    runs: Iterable[int],
    games: Iterable[int] = (134,),
    run_sds: Iterable[float] = (0.02, 0.04, 0.06, 0.08),
    rate: float = 0.6,
    residual: float | None = None,
    method_game_var: float = 0.0,
    new_games: bool = False,
    alpha: float = 0.05,
    power: float = 0.8,
    design: str = "independent",
    correlation: float = 0.0,
    methods: int = 4,
) -> pd.DataFrame:
    """Minimal detectable effect (fraction) of one design for every combination of runs, games and sd over
    runs."""
    rest = binomial_residual(rate) if residual is None else residual
    alike = 0.0 if design == "independent" else correlation
    rows = []
    for sd in run_sds:
        for n_games in games:
            for n in runs:
                se = standard_error(n, n_games, sd, rest, method_game_var, new_games, alike)
                effect = plannable_in(design, se, n, methods, alpha, power)
                place = {"design": design, "correlation": alike, "run_sd": sd, "games": n_games, "runs": n}
                rows.append(place | {"se": se, "detectable": effect})
    return pd.DataFrame(rows)


def needed_in(
    design: str,
    effect: float,
    se_of_one: float,
    fixed: float,
    methods: int,
    alpha: float = 0.05,
    power: float = 0.8,
    most: int = 1000,
) -> int | None:
    """Fewest runs a method that see `effect`; None where `most` do not. The variance of the difference is
    `se_of_one`² / runs + `fixed`."""

    def sees(runs: int) -> bool:
        se = float(np.sqrt(se_of_one**2 / runs + fixed))
        return power_in(design, effect, se, runs, methods, alpha) >= power

    if not sees(most):
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high


def needed_table(
    effects: Iterable[float] = (0.03, 0.05, 0.08, 0.10, 0.15),
    games: Iterable[int] = (134,),
    run_sds: Iterable[float] = (0.02, 0.04, 0.06, 0.08),
    rate: float = 0.6,
    residual: float | None = None,
    method_game_var: float = 0.0,
    new_games: bool = False,
    alpha: float = 0.05,
    power: float = 0.8,
    design: str = "independent",
    correlation: float = 0.0,
    methods: int = 4,
) -> pd.DataFrame:
    """Runs (seeds) per method that each effect needs: of the chosen design, and of each of the three if pairs
    have that correlation; empty where more than 1000."""
    rest = binomial_residual(rate) if residual is None else residual
    rows = []
    for effect in effects:
        for sd in run_sds:
            for n_games in games:
                fixed = 2 * method_game_var / n_games if new_games else 0.0
                row: dict[str, float | int | None] = {"effect": effect, "run_sd": sd, "games": n_games}
                for name in ("independent", "paired", "blocked"):
                    alike = 0.0 if name == "independent" else correlation
                    one = standard_error(1, n_games, sd, rest, correlation=alike)
                    row[name] = needed_in(name, effect, one, fixed, methods, alpha, power)
                rows.append(row | {"runs_needed": row[design], "correlation": correlation})
    order = ["effect", "run_sd", "games", "runs_needed", "correlation", "independent", "paired", "blocked"]
    kinds = dict.fromkeys(("runs_needed", "independent", "paired", "blocked"), "Int64")
    return pd.DataFrame(rows)[order].astype(kinds)

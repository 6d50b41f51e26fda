"""What each design can see: detectable effects and seeds needed, for independent, paired and blocked runs.

`Var(difference) = 2 (run_sd² + residual/games) (1 − correlation) / runs`, with correlation 0 where the design
does not use it. The paired test is Student's with runs − 1 degrees of freedom. The blocked one takes the
larger of the pooled rest and that of the two methods (`analysis.blocked`); its power is counted over
simulated studies of normal runs with equal spreads, from a fixed seed, and is known to about 1 % of the
effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import Refusal
from analysis.power import (
    binomial_residual,
    detectable,
    plannable,
    power_of,
    standard_error,
    welch_power,
)
from analysis.question import DESIGNS

SIMULATED = 8000
"""Studies from which the power of a blocked one is counted."""
MOST = 1000
"""More runs a method are not looked for."""
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
    own_df = np.where(of_pairs > mean, runs - 1.0, own_df)
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


@dataclass(frozen=True)
class Assumed:
    """What is assumed of a study before its runs; each combination of `games` and `run_sds` makes a row.

    Rates are fractions, variances in their square. `correlation` is that of the run means of two methods with
    one seed (an independent design does not use it), `methods` the number of those of a blocked study.
    """

    games: Sequence[int] = (134,)
    run_sds: Sequence[float] = (0.02, 0.04, 0.06, 0.08)
    """sd over training runs of the true success rate."""
    rate: float = 0.6
    residual: float | None = None
    """Run × game plus decoding noise per episode; None: what is left of a rate's binomial variance."""
    method_game_var: float = 0.0
    new_games: bool = False
    alpha: float = 0.05
    power: float = 0.8
    design: str = "independent"
    correlation: float = 0.0
    methods: int = 4

    def standard_error(self, design: str, runs: int, games: int, run_sd: float, new_games: bool) -> float:
        """Of the difference of two methods with `runs` runs each."""
        rest = binomial_residual(self.rate) if self.residual is None else self.residual
        alike = 0.0 if design == "independent" else self.correlation
        return standard_error(runs, games, run_sd, rest, self.method_game_var, new_games, alike)


def detectable_table(runs: Iterable[int], assumed: Assumed) -> pd.DataFrame:
    """Minimal detectable effect (fraction) of one design for every combination of runs, games and sd over
    runs. Raises Refusal for one run."""
    design, rows = assumed.design, []
    place = {"design": design, "correlation": 0.0 if design == "independent" else assumed.correlation}
    for sd, games, n in product(assumed.run_sds, assumed.games, runs):
        if n < 2:
            raise Refusal(
                "A comparison of recipes needs at least 2 runs per method; with 1 there is no spread."
            )
        se = assumed.standard_error(design, n, games, sd, assumed.new_games)
        effect = plannable_in(design, se, n, assumed.methods, assumed.alpha, assumed.power)
        rows.append(place | {"run_sd": sd, "games": games, "runs": n, "se": se, "detectable": effect})
    return pd.DataFrame(rows)


def needed_in(design: str, effect: float, se_of_one: float, fixed: float, assumed: Assumed) -> int | None:
    """Fewest runs a method that see `effect`; None where `MOST` do not. The variance of the difference is
    `se_of_one`² / runs + `fixed`."""

    def sees(runs: int) -> bool:
        se = float(np.sqrt(se_of_one**2 / runs + fixed))
        return power_in(design, effect, se, runs, assumed.methods, assumed.alpha) >= assumed.power

    if not sees(MOST):
        return None
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high


def needed_table(effects: Iterable[float], assumed: Assumed) -> pd.DataFrame:
    """Runs (seeds) per method that each effect needs: of the chosen design, and of each of the three if pairs
    have that correlation; empty where more than `MOST`."""
    rows = []
    for effect, sd, games in product(effects, assumed.run_sds, assumed.games):
        fixed = 2 * assumed.method_game_var / games if assumed.new_games else 0.0
        row: dict[str, float | int | None] = {"effect": effect, "run_sd": sd, "games": games}
        for name in DESIGNS:
            one = assumed.standard_error(name, 1, games, sd, new_games=False)
            row[name] = needed_in(name, effect, one, fixed, assumed)
        rows.append(row | {"runs_needed": row[assumed.design], "correlation": assumed.correlation})
    order = ["effect", "run_sd", "games", "runs_needed", "correlation", *DESIGNS]
    return pd.DataFrame(rows)[order].astype(dict.fromkeys(("runs_needed", *DESIGNS), "Int64"))

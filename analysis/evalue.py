"""E-values: evidence that may be looked at whenever one likes, and gathered for as long as one likes.

The Bayes factor of a t test with the right Haar prior on the sd and a normal prior on the standardized
effect, mean / sd ~ N(0, PRIOR_SD²), is at every number of seeds an e-value (Grünwald, de Heide and Koolen
2024, JRSS B 86:1091; Pérez-Ortiz, Lardy, de Heide and Grünwald 2024, Annals of Statistics 52:1410): under no
effect it ever reaches 1/α with chance at most α, so 20 stands for 0.05, planned or not. The price is power
(docs/evidence/coverage.md).
"""

from __future__ import annotations

import numpy as np
from scipy import optimize

PRIOR_SD = 1.5
"""A typical effect to look for, in sd of a paired difference."""
ENOUGH = 20.0
"""1/α at α = 0.05."""


def log_e_value(t: float | np.ndarray, n: int | np.ndarray, prior_sd: float = PRIOR_SD) -> np.ndarray:
    """Natural logarithm of the e-value of a one-sample t from `n` values; 0 below two.

    log E = −½ log(1 + n g) + n/2 · [log(1 + t²/ν) − log(1 + t²/(ν (1 + n g)))], g = prior_sd², ν = n − 1.
    """
    shrink, df = 1 + n * prior_sd**2, np.maximum(n - 1, 1)
    square = np.square(t) / df
    value = -np.log(shrink) / 2 + n / 2 * (np.log1p(square) - np.log1p(square / shrink))
    return np.where(np.less(n, 2), 0.0, value)


def e_value(t: float, n: int) -> float:
    """The e-value; inf where it has no number."""
    with np.errstate(over="ignore"):
        return float(np.exp(log_e_value(t, n)))


def reach(n: int, enough: float = ENOUGH) -> float:
    """The |t| whose e-value is `enough`; inf where no t has it (few values: E < (1 + n g)^((n − 1)/2))."""
    wanted = float(np.log(enough))
    if n < 2 or (n - 1) / 2 * np.log1p(n * PRIOR_SD**2) <= wanted:
        return float("inf")
    high = 1.0
    while log_e_value(high, n) < wanted:
        high *= 2
    return float(optimize.brentq(lambda t: float(log_e_value(t, n)) - wanted, 0.0, high))

"""Looking at a study several times: O'Brien and Fleming's levels for t tests with few seeds.

A study of at most N seeds is looked at after n_1 < … < n_K = N of them. At look k the two-sided p of the
planned test is held against 2 Φ(−C / √(n_k / N)) (O'Brien and Fleming 1979, Biometrics 35:549), a level so
small at first that the last one is nearly the whole. C is calibrated on the paired t tests themselves, not
on their normal limit, which with 3 seeds is no approximation: the significance-level approach (Jennison and
Turnbull 2000, Group Sequential Methods, section 11.5). Tests of the other designs have more degrees of
freedom and are held to the same levels (docs/evidence/coverage.md has what they then reject).

- **p of a study** (`p_value`): the smallest level at which the study would have been decided by now, that is
  the chance under no effect that any planned look is as extreme as the most extreme one so far (Liu and
  Anderson 2008, JASA 103:1621). Valid at every look whatever made one stop, and Holm's correction holds for
  several (Maurer and Bretz 2013, Statistics in Biopharmaceutical Research 5:311).
- **Interval**: repeated confidence intervals (Jennison and Turnbull 1989, JRSS B 51:305), Student's at the
  look's own level. Its coverage does not rest on the unknown sd: the t about any true difference has the
  distribution that C was calibrated on. It covers at all looks together, so more than 95 % at the one where
  a study stops.
- **Estimate**: a study that stops early stops high. The mean is corrected by the bias that the plan's looks
  give it (Whitehead 1986, Biometrika 73:573), at the effect that removes it.
- **Futility** (`futility_levels`): the same boundary, one-sided, around the margin: the study may stop where
  an effect of the margin is excluded at a total level γ. Nothing above counts on its being heeded (it is
  non-binding); power at the margin falls by less than γ.

All simulations here are drawn from a fixed seed: a boundary is a function of what was planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

STUDIES = 200_000
"""Simulated without an effect; a level of 0.05 is known to ±0.001."""
EFFECTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
"""Effects, in sd of a paired difference, at which the bias of stopping is simulated."""
_BIAS_STUDIES = 50_000


@dataclass(frozen=True)
class Looks:
    """A schedule: the numbers of seeds `after` which a study is looked at, increasing, from 2 on."""

    after: tuple[int, ...]

    @property
    def shares(self) -> np.ndarray:
        """n_k / N."""
        return np.array(self.after) / self.after[-1]

    def levels(self, alpha: float) -> np.ndarray:
        """Two-sided nominal levels of the looks, `alpha` in all."""
        return 2 * special.ndtr(-self._constant(alpha, 2) / np.sqrt(self.shares))

    def futility_levels(self, gamma: float) -> np.ndarray:
        """One-sided nominal levels of the looks, `gamma` in all."""
        return special.ndtr(-self._constant(gamma, 1) / np.sqrt(self.shares))

    def p_value(self, p: Sequence[float]) -> float:
        """Two-sided p of a study from those of the tests at its first looks; nan where the last is."""
        return self._p(p, 2)

    def one_sided_p_value(self, p: Sequence[float]) -> float:
        """The same of one-sided tests: equivalence, and what futility is read from."""
        return self._p(p, 1)

    def estimate(self, difference: float, sd: float) -> float:
        """The difference at which a study stopped, without the bias of stopping; `sd` is that of a paired
        difference: the standard error times √seeds."""
        if not sd > 0:
            return difference
        bias = stopping_bias(self.after)
        # difference = effect + bias(effect), and the right side grows with the effect.
        observed, ends = abs(difference) / sd, np.array(EFFECTS) + bias
        effect = np.interp(observed, ends, EFFECTS) if observed < ends[-1] else observed - bias[-1]
        return float(np.sign(difference) * sd * effect)

    def _p(self, p: Sequence[float], sides: int) -> float:
        if not len(p) or np.isnan(p[-1]):
            return float("nan")
        scores = -special.ndtri(np.asarray(p, float) / sides) * np.sqrt(self.shares[: len(p)])
        return self._tail(float(np.nanmax(scores)), sides)

    def _tail(self, reached: float, sides: int) -> float:
        """Chance that the largest z √(n / N) of all looks is `reached`, with one standard error of the
        simulation on top. Far out, where hardly a simulated study went, the sum over the looks is an upper
        bound and smaller than that."""
        maxima = _maxima(self.after, sides)
        share = (len(maxima) - np.searchsorted(maxima, reached, "left") + 1) / (len(maxima) + 1)
        counted = share + np.sqrt(share * (1 - share) / len(maxima))
        bound = sides * float(special.ndtr(-reached / np.sqrt(self.shares)).sum())
        return float(min(counted, bound, 1.0))

    def _constant(self, level: float, sides: int) -> float:
        """The smallest C whose tail is at most `level`."""
        low, high = -10.0, 40.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self._tail(middle, sides) <= level else (middle, high)
        return high


def score(t: np.ndarray, df: np.ndarray | float) -> np.ndarray:
    """The normal score with the same tail as a t; by the smaller tail, so that large ones keep their
    digits."""
    return -np.sign(t) * special.ndtri(special.stdtr(df, -np.abs(t)))


def t_at_looks(draws: np.ndarray, after: Sequence[int], effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(means, standard errors), both [studies, looks], of `draws` [studies, seeds] + `effect`."""
    index, n = np.array(after) - 1, np.array(after, float)
    mean = np.cumsum(draws, axis=1)[:, index] / n
    square = np.cumsum(draws**2, axis=1)[:, index]
    return mean + effect, np.sqrt(np.maximum(square - n * mean**2, 0.0) / (n - 1) / n)


@lru_cache(maxsize=16)
def _maxima(after: tuple[int, ...], sides: int) -> np.ndarray:
    """Sorted: of each study without an effect the largest z √(n / N) over its looks."""
    draws = np.random.default_rng([21, *after]).standard_normal((STUDIES, after[-1]))
    mean, se = t_at_looks(draws, after)
    z = score(mean / se, np.array(after) - 1.0) * np.sqrt(np.array(after) / after[-1])
    return np.sort((np.abs(z) if sides == 2 else z).max(axis=1))


@lru_cache(maxsize=16)
def stopping_bias(after: tuple[int, ...]) -> np.ndarray:
    """Mean of the difference at the stop minus the truth at each of `EFFECTS`, in sd of a paired difference;
    futility not heeded."""
    reach = -special.stdtrit(np.array(after) - 1.0, Looks(after).levels(0.05) / 2)
    draws = np.random.default_rng([22, *after]).standard_normal((_BIAS_STUDIES, after[-1]))
    found = []
    for effect in EFFECTS:
        mean, se = t_at_looks(draws, after, effect)
        stops = np.abs(mean) >= reach * se
        stops[:, -1] = True
        at_stop = mean[np.arange(len(mean)), stops.argmax(axis=1)]
        # Against the same draws played to the end, whose mean is unbiased: less noise than against the truth.
        found.append(float((at_stop - mean[:, -1]).mean()))
    return np.array(found)

"""The Wilson interval against scipy and statsmodels."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from sage.records.intervals import wilson


@pytest.mark.parametrize("n", [1, 2, 5, 20, 134, 1000])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_equals_scipy_and_statsmodels(n: int, level: float) -> None:
    for k in {0, 1, n // 3, n // 2, n - 1, n}:
        ours = wilson(k, n, level)
        theirs = binomtest(k, n).proportion_ci(level, method="wilson")
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert ours == pytest.approx(proportion_confint(k, n, 1 - level, "wilson"), abs=1e-12)


def test_bounds_are_exact_at_the_ends() -> None:
    assert wilson(0, 134)[0] == 0.0
    assert wilson(134, 134)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n", "level"), [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 1.0)])
def test_nonsense_is_refused(k: int, n: int, level: float) -> None:
    with pytest.raises(ValueError):
        wilson(k, n, level)

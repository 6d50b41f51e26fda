"""Profiles and interquartile means against rliable, installed only in `nox -s rliable`."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.profile import TAUS, _draws, iqm

rliable = pytest.importorskip("rliable", reason="rliable is a test oracle of its own session: nox -s rliable")


@pytest.fixture(scope="module")
def rates() -> np.ndarray:
    """Ten runs on six task types; no rate lies on a threshold, where ours counts it in and rliable out."""
    return np.random.default_rng(5).beta(4, 3, (10, 6))


def test_interquartile_mean_is_rliables(rates: np.ndarray) -> None:
    from rliable import metrics

    assert iqm(rates) == pytest.approx(metrics.aggregate_iqm(rates), abs=1e-12)
    assert iqm(rates[:3]) == pytest.approx(metrics.aggregate_iqm(rates[:3]), abs=1e-12)


def test_performance_profile_is_rliables(rates: np.ndarray) -> None:
    from rliable import library

    theirs, _ = library.create_performance_profile({"method": rates}, TAUS, reps=50)
    ours = [(rates >= tau).mean() for tau in TAUS]
    np.testing.assert_allclose(theirs["method"], ours, atol=1e-12)


def test_the_stratified_bootstrap_is_rliables(rates: np.ndarray) -> None:
    """Intervals of the interquartile mean from both, each from its own 20,000 draws."""
    from rliable import library, metrics

    _, theirs = library.get_interval_estimates(
        {"method": rates}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=20_000
    )
    drawn = _draws(rates, 20_000, np.random.default_rng(1))
    ours = np.quantile([iqm(draw) for draw in drawn], [0.025, 0.975])
    # The Monte Carlo error of such a quantile is about 0.0005 here.
    np.testing.assert_allclose(theirs["method"].ravel(), ours, atol=0.004)

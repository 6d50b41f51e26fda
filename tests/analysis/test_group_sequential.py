"""Looking several times: levels, p values, intervals and e-values, against an exact computation and the
distributions they claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.evalue import e_value, log_e_value, reach
from analysis.group_sequential import STUDIES, Looks, score, stopping_bias, t_at_looks
from benchmarks.sequential import other_designs, stopping

EVERY = Looks(tuple(range(3, 11)))
FEW = Looks((3, 5, 7, 10))


def never_reached(after: tuple[int, ...], reaches: np.ndarray) -> float:
    """Exact chance that no |t| of a sample without an effect is above its `reaches` at these sizes.

    Under no effect the cosine c_n between the sample and (1, …, 1) is a Markov chain: the direction of the
    sample is independent of its length, so c_{n+1} = (√n c_n cos φ + sin φ) / √(n + 1) with a density of φ
    proportional to cos^{n−1} φ. Backward recursion with Gauss-Legendre on the pieces that stay inside.
    """
    nodes, weights = np.polynomial.legendre.leggauss(120)
    limit = {n: r / np.sqrt(n - 1 + r**2) for n, r in zip(after, reaches, strict=True)}
    grid = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 401))
    stay = np.ones_like(grid)
    for n in range(after[-1] - 1, after[0] - 1, -1):
        bound = limit.get(n + 1, 1.0)
        mass = integrate.quad(lambda f, n=n: np.cos(f) ** (n - 1), -np.pi / 2, np.pi / 2)[0]
        later = []
        for c in grid:
            turn, size = np.arctan(np.sqrt(n) * c), np.sqrt(1 + n * c**2)
            most = np.arcsin(min(1.0, bound * np.sqrt(n + 1) / size))
            total = 0.0
            for low, high in ((-most, most), (np.pi - most, np.pi + most), (-np.pi - most, -np.pi + most)):
                low, high = max(low, turn - np.pi / 2), min(high, turn + np.pi / 2)
                if low < high:
                    angle = (low + high) / 2 + (high - low) / 2 * nodes
                    onward = np.interp(size * np.sin(angle) / np.sqrt(n + 1), grid, stay)
                    total += (high - low) / 2 * (weights @ (np.cos(angle - turn) ** (n - 1) * onward))
            later.append(total / mass)
        stay = np.array(later)
    n, bound = after[0], np.arcsin(limit[after[0]])
    angle = bound * nodes
    mass = integrate.quad(lambda f: np.cos(f) ** (n - 2), -np.pi / 2, np.pi / 2)[0]
    return float(bound * (weights @ (np.cos(angle) ** (n - 2) * np.interp(np.sin(angle), grid, stay))) / mass)


@pytest.mark.parametrize("looks", [EVERY, FEW, Looks((5, 10)), Looks((2, 4, 12))], ids=str)
def test_the_levels_spend_alpha_and_no_more(looks: Looks):
    levels = looks.levels(0.05)
    reaches = stats.t.isf(levels / 2, np.array(looks.after) - 1)
    spent = 1 - never_reached(looks.after, reaches)
    assert spent == pytest.approx(0.0495, abs=3.5 * np.sqrt(0.05 * 0.95 / STUDIES))
    assert (np.diff(levels) > 0).all()


def test_the_exact_reference_knows_a_single_look():
    assert 1 - never_reached((4, 5), np.array([1e9, 2.776445])) == pytest.approx(0.05, abs=5e-4)


def test_levels_of_many_seeds_are_the_textbook_s():
    """O'Brien and Fleming's constant for five looks and α 0.05 is 2.040 (Jennison and Turnbull 2000, 2.3)."""
    levels = Looks((200, 400, 600, 800, 1000)).levels(0.05)
    assert stats.norm.isf(levels[-1] / 2) == pytest.approx(2.040, abs=0.02)
    assert stats.norm.isf(levels[0] / 2) == pytest.approx(2.040 * np.sqrt(5), abs=0.04)


def test_a_single_look_is_the_fixed_design():
    once = Looks((6,))
    assert once.levels(0.05)[0] == pytest.approx(0.05, abs=0.001)
    assert once.p_value([0.02]) == pytest.approx(0.02, abs=0.001)
    assert once.p_value([1e-9]) == pytest.approx(1e-9)


def test_a_study_is_decided_where_its_p_reaches_the_look_s_level():
    levels = FEW.levels(0.05)
    for k, level in enumerate(levels):
        before = [0.9] * k
        assert FEW.p_value([*before, level * 1.02]) > 0.05
        assert FEW.p_value([*before, level * 0.98]) <= 0.05
    assert FEW.p_value([0.9, levels[1] * 0.9, 0.9]) <= 0.05  # what was reached once stays
    assert np.isnan(FEW.p_value([0.5, float("nan")]))


def test_p_values_of_studies_without_an_effect_are_uniform_or_larger_whenever_one_stops():
    rng = np.random.default_rng(3)
    mean, se = t_at_looks(rng.standard_normal((3000, 10)), FEW.after)
    p = 2 * stats.t.sf(np.abs(mean / se), np.array(FEW.after) - 1)
    at_end = np.array([FEW.p_value(row) for row in p])
    for level in (0.01, 0.05, 0.2):
        assert (at_end <= level).mean() == pytest.approx(level, abs=3.5 * np.sqrt(level / 3000))
    early = np.array([FEW.p_value(row[:2]) for row in p])
    assert (early >= at_end - 1e-12).all()


def test_futility_excludes_a_margin_at_its_level_in_all():
    rng = np.random.default_rng(4)
    mean, se = t_at_looks(rng.standard_normal((40_000, 10)), FEW.after, effect=1.0)
    below = stats.t.cdf((mean - 1.0) / se, np.array(FEW.after) - 1)
    assert (below <= FEW.futility_levels(0.05)).any(axis=1).mean() == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0, 2.0])
def test_intervals_at_the_stop_cover_and_the_estimate_does_not_run_ahead(effect: float):
    rng = np.random.default_rng(5)
    mean, se = t_at_looks(rng.standard_normal((20_000, 10)), FEW.after, effect)
    reaches = stats.t.isf(FEW.levels(0.05) / 2, np.array(FEW.after) - 1)
    stops = np.abs(mean) >= reaches * se
    covered = np.abs(mean - effect) <= reaches * se
    stops[:, -1] = True
    k, every = stops.argmax(axis=1), np.arange(len(mean))
    assert covered[every, k].mean() >= 0.945
    assert covered.all(axis=1).mean() == pytest.approx(0.95, abs=0.006)  # all looks together
    n = np.sqrt(np.array(FEW.after))[k]
    ours = [FEW.estimate(m, s) for m, s in zip(mean[every, k][:4000], (se[every, k] * n)[:4000], strict=True)]
    assert abs(np.mean(ours) - effect) < max(0.02, 0.6 * abs(mean[every, k].mean() - effect))


def test_four_looks_cost_little_power_and_spare_seeds():
    """The table of docs/evidence/coverage.md in small: `benchmarks/sequential.py`."""
    table = stopping(8000).set_index(["looks after", "effect"]).loc["3, 5, 7, 10"]
    assert table.loc[0.0, "shown"] < 0.055
    assert table.loc[1.0, "fixed 10: shown"] - table.loc[1.0, "with futility: shown"] < 0.035
    assert list(table.loc[[1.0, 2.0, 3.0], "mean seeds"]) == pytest.approx([8.9, 6.6, 5.6], abs=0.15)
    assert table["coverage at the stop, futility heeded"].min() > 0.94
    assert (table["bias of the estimate"].abs() < 0.03).all()


def test_other_designs_hold_the_levels_of_pairs_also_where_spreads_are_unlike():
    shown = other_designs(6000)[["independent: shown", "paired: shown", "blocked: shown"]]
    assert (shown < 0.06).all(axis=None)


def test_an_estimate_is_never_further_out_than_the_mean_and_keeps_its_sign():
    for difference in (-3.0, -0.4, -0.01, 0.0, 0.02, 0.7, 9.0):
        ours = FEW.estimate(difference, 0.5)
        assert abs(ours) <= abs(difference) + 1e-3
        assert ours * difference >= 0
    assert FEW.estimate(0.3, 0.0) == 0.3
    assert stopping_bias(FEW.after).max() < 0.06


def test_scores_have_the_tail_of_their_t():
    t = np.array([-40.0, -2.0, 0.0, 2.0, 40.0])
    assert score(t, 3.0) == pytest.approx(np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), 3)), abs=1e-9)


@pytest.mark.parametrize(("t", "n"), [(0.0, 3), (2.5, 5), (-4.0, 10)])
def test_an_e_value_is_the_ratio_of_the_t_s_densities(t: float, n: int):
    """Against quadrature: the noncentral t averaged over the prior, over the central one."""
    averaged, _ = integrate.quad(
        lambda d: stats.nct.pdf(t, n - 1, d * np.sqrt(n)) * stats.norm.pdf(d, scale=1.5), -9, 9, limit=200
    )
    assert e_value(t, n) == pytest.approx(averaged / stats.t.pdf(t, n - 1), rel=1e-5)


def test_an_e_value_reaches_twenty_in_less_than_one_study_without_effect_of_twenty():
    draws = np.random.default_rng(6).standard_normal((20_000, 60))
    sizes = np.arange(2, 61)
    mean, se = t_at_looks(draws, sizes)
    ever = (log_e_value(mean / se, sizes) >= np.log(20)).any(axis=1).mean()
    assert ever < 0.05


def test_reach_is_where_the_e_value_is_twenty_and_nowhere_for_three_seeds():
    assert e_value(reach(5), 5) == pytest.approx(20)
    assert e_value(-reach(5), 5) == pytest.approx(20)
    assert reach(3) == float("inf")  # three seeds alone are never enough

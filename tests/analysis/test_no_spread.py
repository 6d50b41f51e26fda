"""Runs without spread: the variance of a run mean is never below what its games leave to chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.bootstrap import two_way
from analysis.compare import compare
from analysis.controls import controls
from analysis.intervals import t_interval
from analysis.load import from_episodes
from analysis.question import Question
from analysis.runmeans import RunMeans, least_variance
from analysis.significance import tost, welch
from analysis.summary import per_task_type, summary


def table(wins: dict[str, int], games: int = 14, runs: int = 3, shift: int = 1) -> pd.DataFrame:
    """Each run of a method wins the same number of games; `shift` tells which: 0 takes the same in every
    run."""
    return pd.DataFrame(
        [
            {
                "method": method,
                "env": "e",
                "split": "s",
                "seed": seed,
                "task": f"g{game:02d}",
                "won": int((game + shift * seed) % games < count),
            }
            for method, count in wins.items()
            for seed in range(runs)
            for game in range(games)
        ]
    )


def test_the_least_variance_by_hand():
    # Game 0 is won by one run of two (variance 1/2), games 1 and 2 by both or none: (1/2) / 3² = 1/18.
    values = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    even = np.full(3, 1 / 3)
    assert least_variance(values, even) == pytest.approx(1 / 18)
    # Runs that agree everywhere count as if they might have differed on half a game: ½/4 for each of 3.
    assert least_variance(np.ones((2, 3)), even) == pytest.approx(0.125 / 3)
    # Weights of a macro-average, and a game that one run lacks: it takes the others' mean.
    weights = np.array([0.5, 0.25, 0.25])
    assert least_variance(values, weights) == pytest.approx(0.25 * 0.5)
    values[1, 2] = np.nan
    assert least_variance(values, even) == pytest.approx((0.5 + 0 + 0.25) / 9)
    assert np.isnan(least_variance(values[:1], even))
    assert np.isnan(least_variance(np.zeros((2, 3)), even, grain=0.0))


def test_it_is_the_binomial_variance_where_games_are_alike():
    """On equally hard games the mean of the floor is p(1 − p)/G; where games differ it leaves that out."""
    rng = np.random.default_rng(0)
    even = np.full(50, 0.02)
    alike = [least_variance((rng.random((3, 50)) < 0.3).astype(float), even) for _ in range(400)]
    assert np.mean(alike) == pytest.approx(0.3 * 0.7 / 50, rel=0.03)
    chances = np.repeat([0.05, 0.55], 25)
    mixed = [least_variance((rng.random((3, 50)) < chances).astype(float), even) for _ in range(400)]
    assert np.mean(mixed) == pytest.approx((chances * (1 - chances)).mean() / 50, rel=0.03)


def test_a_wider_spread_over_runs_is_left_as_it_is():
    a, b = np.array([0.2, 0.5, 0.7]), np.array([0.1, 0.3, 0.2])
    theirs = stats.ttest_ind(a, b, equal_var=False)
    ours = welch(RunMeans(a, 0.001), RunMeans(b, 0.001))
    assert (ours.t, ours.p, ours.df) == pytest.approx((theirs.statistic, theirs.pvalue, theirs.df))
    assert not RunMeans(a, 0.001).floored
    floored = welch(RunMeans(a, 0.001), RunMeans(b, 0.09))
    assert floored.se == pytest.approx(np.sqrt(a.var(ddof=1) / 3 + 0.09 / 3))
    assert RunMeans(b, 0.09).floored


def test_equal_runs_are_neither_better_nor_equivalent():
    for shift in (0, 1):
        row = compare(
            from_episodes(table({"opd": 4, "other": 5}, shift=shift)), Question(baseline="opd", margin=0.05)
        ).iloc[0]
        assert row["verdict"].startswith("not shown")
        assert 0.1 < row["p"] < 1
        assert row["p_equivalent"] > 0.05
        assert row["welch_low"] < -0.02
        assert row["welch_high"] > 0.15
        assert row["low"] < row["welch_low"] + 0.05
        assert row["spread"].startswith("games")
        assert row["detectable"] > 0.1


def test_runs_that_won_everything_are_not_equivalent_within_anything():
    records = from_episodes(table({"opd": 14, "other": 14}))
    row = compare(records, Question(baseline="opd", margin=0.05)).iloc[0]
    assert row["verdict"].startswith("not shown")
    assert row["low"] < -0.05 < 0.05 < row["high"]
    assert row["low"] == pytest.approx(-row["high"])
    for frame in (summary(records), per_task_type(records)):
        assert frame["high"].tolist() == [1, 1]
        assert frame["low"].between(0.7, 0.95).all()
    wide = compare(
        from_episodes(table({"opd": 200, "other": 200}, games=200)), Question(baseline="opd", margin=0.05)
    ).iloc[0]
    assert wide["verdict"].startswith("equivalent")  # 600 of 600 games on both sides do say so


def test_no_interval_of_a_difference_of_rates_leaves_what_rates_can_be():
    few = table({"opd": 0, "other": 1}, games=2)
    row = compare(from_episodes(few[few["seed"] < 2]), Question(baseline="opd")).iloc[0]
    ends = row[["low", "high", "welch_low", "welch_high"]].astype(float)
    assert ends.between(-1, 1).all()
    assert row["detectable"] > 1
    assert "could see no difference of rates" in row["verdict"]


def test_a_large_difference_is_found_without_spread():
    row = compare(from_episodes(table({"opd": 10, "other": 110}, games=134)), Question(baseline="opd")).iloc[
        0
    ]
    assert row["verdict"].startswith("better")
    assert 1e-9 < row["p"] < 0.001


def test_controls_and_student_have_the_same_floor():
    both = table({"sage_opd": 14, "learned_intervention": 14})
    row = (
        controls(from_episodes(both), Question(margin=0.05, draws=200))
        .set_index("method")
        .loc["learned_intervention"]
    )
    assert row["verdict"] == "not shown"
    low, high = t_interval(RunMeans(np.full(3, 0.5), 0.01))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, 0.5, np.sqrt(0.01 / 3)))
    assert np.isnan(t_interval([0.5, 0.5, 0.5])).all()


def test_graded_scores_take_the_range_that_was_seen():
    episodes = table({"opd": 14, "other": 14})
    all_100 = from_episodes(episodes.assign(score=100.0))
    row = compare(all_100, Question(baseline="opd", metric="score", margin=5.0)).iloc[0]
    assert row["low"] < -5
    assert row["verdict"].startswith("not shown")
    nothing = compare(
        from_episodes(episodes.assign(score=0.0)), Question(baseline="opd", metric="score", margin=5.0)
    ).iloc[0]
    assert nothing["verdict"] == "cannot tell: no score differs from 0, so its scale is unknown"
    assert np.isnan(nothing[["p", "low", "high", "p_equivalent"]].astype(float)).all()


def test_two_plays_of_a_game_leave_less_to_chance():
    once, twice = np.ones((3, 10)), 0.5
    even = np.full(10, 0.1)
    assert least_variance(once, even, grain=twice) == pytest.approx(least_variance(once, even) / 4)


def test_the_two_way_interval_is_symmetric_where_its_draws_have_no_spread():
    values = np.ones((6, 14))
    rows = np.arange(3), np.arange(3, 6)
    boot = two_way(values, *rows, np.zeros(14, int), np.full(14, 1 / 14), draws=200)
    assert boot.low == pytest.approx(-boot.high)
    assert boot.high > 0.1


@pytest.mark.parametrize("games", [12, 150])
@pytest.mark.parametrize("rate", [0.003, 0.05])
def test_false_positives_and_false_equivalence_at_low_rates(games, rate):
    rng = np.random.default_rng([games, int(1000 * rate)])
    weights, margin, reps = np.full(games, 1 / games), 0.05, 400
    smallest, rejected, equivalent = 1.0, 0, 0
    for _ in range(reps):
        base, same = ((rng.random((3, games)) < rate).astype(float) for _ in range(2))
        other = (rng.random((3, games)) < rate + margin).astype(float)
        base, same, other = (
            RunMeans(t.mean(axis=1), least_variance(t, weights)) for t in (base, same, other)
        )
        p = welch(same, base).p
        smallest, rejected = min(smallest, p), rejected + (p < 0.05)
        equivalent += tost(other, base, margin) < 0.05
    assert smallest > 1e-6
    assert rejected / reps <= 0.05
    assert equivalent / reps <= 0.05

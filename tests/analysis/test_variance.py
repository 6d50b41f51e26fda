"""Variance components against statsmodels' ANOVA and against a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.errors import Refusal
from analysis.load import from_episodes
from analysis.question import Question
from analysis.questions.variance import answer as tables
from analysis.simulate import World
from analysis.spread_of_difference import INTERACTION, components
from analysis.variance import (
    DECODING,
    RESIDUE,
    contrast,
    mean_squares,
    pilot,
    precision,
    variance,
)
from tests.analysis.synthetic import episode_table


def table(runs, games, repeats, rng, sds=(0.3, 0.8, 0.4, 1.0)):
    run, game, cross, noise = sds
    return (
        rng.normal(0, run, (runs, 1, 1))
        + rng.normal(0, game, (1, games, 1))
        + rng.normal(0, cross, (runs, games, 1))
        + rng.normal(0, noise, (runs, games, repeats))
    )


def test_mean_squares_are_statsmodels():
    values = table(4, 6, 3, np.random.default_rng(0))
    index = pd.MultiIndex.from_product([range(4), range(6), range(3)], names=["s", "g", "r"])
    frame = pd.DataFrame({"y": values.ravel()}, index=index).reset_index()
    theirs = anova_lm(ols("y ~ C(s) * C(g)", frame).fit())["sum_sq"] / anova_lm(
        ols("y ~ C(s) * C(g)", frame).fit()
    )["df"].astype(float)
    ours = mean_squares(values)
    assert [ours.run, ours.game, ours.cross, ours.error] == pytest.approx(theirs.to_list())


def test_components_are_unbiased():
    rng = np.random.default_rng(1)
    found = [mean_squares(table(6, 20, 2, rng)).components() for _ in range(400)]
    means = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert means["training run"] == pytest.approx(0.09, rel=0.12)
    assert means["game"] == pytest.approx(0.64, rel=0.08)
    assert means["run × game"] == pytest.approx(0.16, rel=0.12)
    assert means[DECODING] == pytest.approx(1.0, rel=0.03)


def test_intervals_cover():
    rng = np.random.default_rng(2)
    hits = np.zeros(2)
    for _ in range(200):
        drawn = mean_squares(table(5, 30, 1, rng)).drawn(400, rng)
        for i, (name, truth) in enumerate((("training run", 0.09), ("game", 0.64))):
            low, high = np.quantile(drawn[name], [0.025, 0.975])
            hits[i] += low <= truth <= high
    assert (hits / 200 > 0.91).all()


def test_rows_and_shares():
    records = from_episodes(episode_table({"opd": 0.0}, games=40, rollouts=3, run_sd=0.5))
    frame = variance(records)
    assert frame["component"].tolist() == ["training run", "game", "run × game", DECODING]
    assert frame["share_of_mean"].sum() == pytest.approx(1)
    assert (frame["low"] <= frame["sd"]).all()
    assert (frame["high"] >= frame["sd"]).all()
    now = precision(frame).iloc[0]
    assert now["se_now"] == pytest.approx(np.sqrt(frame["in_mean"].sum()))
    assert now["se_endless_runs"] < now["se_twice_runs"] < now["se_now"]
    assert not now["retest_is_bound"]
    noise = frame.set_index("component").loc[DECODING, "variance"]
    assert now["retest_sd"] == pytest.approx(np.sqrt(noise / 120))


def test_without_repeats_the_residue_is_one():
    frame = variance(from_episodes(episode_table({"opd": 0.0}, games=40)))
    assert frame["component"].tolist() == ["training run", "game", RESIDUE]
    assert precision(frame)["retest_is_bound"].all()


def test_one_run_is_refused():
    with pytest.raises(Refusal, match="has one run"):
        variance(from_episodes(episode_table({"opd": 0.0}, seeds=[0], games=10)))


def test_games_with_an_error_are_left_out_and_counted():
    episodes = episode_table({"opd": 0.0}, games=10)
    episodes["status"] = np.where(episodes["won"] == 1, "won", "lost")
    episodes.loc[3, ["status", "won"]] = ["env_error", 0]
    frame = variance(from_episodes(episodes))
    assert frame["games_left_out"].eq(1).all()
    assert frame["games"].eq(9).all()


def test_pilot_recovers_the_truth():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(150):
        arms = [
            rng.normal(0, 0.3, (6, 1, 1)) + rng.normal(0, 0.7, (1, 50, 1)) + rng.normal(0, 1, (6, 50, 1))
            for _ in range(2)
        ]
        found.append(pilot(*arms))
    assert np.mean([f["residual"] for f in found]) == pytest.approx(1.0, rel=0.03)
    assert np.mean([f["method_game_var"] for f in found]) == pytest.approx(0.49, rel=0.08)
    assert np.mean([f["run_sd"] ** 2 for f in found]) == pytest.approx(0.09, rel=0.15)


def test_contrast_rows():
    frame = contrast(
        from_episodes(episode_table({"opd": 0.0, "sage_opd": 0.4}, games=30)), Question(baseline="opd")
    )
    assert frame["method"].tolist() == ["sage_opd"]
    assert frame["residual"].between(0, 0.3).all()


def test_components_of_wins_and_losses_are_covered():
    """A chi-square of the decoding noise covers 58 to 90 % of 0/1 worlds; resampled games must do better."""
    world = World(seed_sd=0.04, games=134, method_game_sd=0.0)
    truth, rng, hits = world.components(), np.random.default_rng(5), []
    for _ in range(150):
        drawn = mean_squares(world.draw_arms((world.rate,), 10, rng, repeats=3)[0][0]).drawn(300, rng)
        bounds = {name: np.quantile(np.maximum(values, 0), [0.025, 0.975]) for name, values in drawn.items()}
        hits.append([bounds[name][0] <= truth[name] <= bounds[name][1] for name in (DECODING, "game")])
    assert (np.mean(hits, axis=0) > 0.89).all()


def test_world_components_add_up():
    world = World(seed_sd=0.06, games=3000, method_game_sd=0.0)
    parts = world.components()
    assert parts["run × game + decoding"] == pytest.approx(parts["run × game"] + parts[DECODING])
    whole = parts["training run"] + parts["game"] + parts["run × game + decoding"]
    assert whole == pytest.approx(world.rate * (1 - world.rate))
    found = mean_squares(world.draw_arms((world.rate,), 40, np.random.default_rng(0), 2)[0][0]).components()
    assert found["game"] == pytest.approx(parts["game"], rel=0.08)
    assert found[DECODING] == pytest.approx(parts[DECODING], rel=0.03)


def test_the_difference_is_decomposed_without_bias_and_games_cancel():
    """Means of the estimates over simulated pairs of methods, with three runs against five, are the truth."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(400):
        shared = rng.normal(0, 2, (1, 30, 1))  # how hard the games are, for both
        a = shared + rng.normal(0, 0.7, (1, 30, 1)) + table(3, 30, 1, rng, (0.3, 0, 0, 0.5))
        b = shared + table(5, 30, 1, rng, (0.4, 0, 0, 0.6))
        squares = (mean_squares(a), mean_squares(b))
        # Untruncated, to see the bias: what `components` shows is never negative.
        runs = sum(side.components()["training run"] for side in squares)
        parts, _ = components(squares, a.mean(axis=(0, 2)) - b.mean(axis=(0, 2)))
        found.append((runs, parts[INTERACTION], parts[RESIDUE]))
    assert np.mean(found, axis=0) == pytest.approx([0.3**2 + 0.4**2, 0.7**2, 0.5**2 + 0.6**2], rel=0.1)


def test_the_variance_of_a_difference_is_the_sum_of_its_parts():
    records = from_episodes(episode_table({"opd": 0.0, "sage_opd": 0.5}, games=60, run_sd=0.6))
    frame = tables(records, Question(draws=500))["difference"].set_index("component")
    assert frame["share"].sum() == pytest.approx(1)
    assert (frame["low"] <= frame["sd"]).all()
    assert (frame["sd"] <= frame["high"]).all()
    cells_of = records.episodes.pivot_table(index=["method", "run"], columns="task", values="won")
    means = cells_of.mean(axis=1).groupby("method")
    welch_part = sum(means.var(ddof=1) / means.size())
    on_these_games = frame["in_difference"].drop(INTERACTION).sum()
    assert on_these_games == pytest.approx(welch_part)
    assert set(tables(records, Question(baseline="sage_opd", draws=50))["difference"]["method"]) == {"opd"}
    with pytest.raises(Refusal, match="no run of the baseline 'sft'; methods here are opd, sage_opd"):
        tables(records, Question(baseline="sft", draws=50))
    one = from_episodes(episode_table({"opd": 0.0}, games=10))
    assert "difference" not in tables(one, Question(draws=50))


def test_no_component_is_certain_without_reason():
    """Runs that won everything: every component may be more than 0, and the mean has an error."""
    games = episode_table({"opd": 0.0, "sage_opd": 0.0}, seeds=(0, 1, 2), games=10).assign(won=1)
    found = tables(from_episodes(games), Question(draws=2000))
    for name in ("variance", "difference"):
        assert (found[name]["high"] > 0.05).all(), name
        assert (found[name]["low"] <= found[name]["sd"]).all()
    assert (found["precision"]["se_now"] > 0.02).all()
    repeated = variance(from_episodes(pd.concat([games, games.assign(rollout=1)])))
    assert (repeated["high"] > 0.05).all()

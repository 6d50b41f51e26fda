"""Comparison: the two-way bootstrap, the estimands, the corrections, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.bootstrap import crossed_variance, game_weights, resampled_run_means, two_way
from analysis.cells import cells
from analysis.compare import CHECKPOINT, RECIPE, checkpoints, compare
from analysis.errors import Refusal
from analysis.load import from_episodes
from analysis.question import Question
from analysis.simulate import World
from analysis.summary import over_splits, per_run, per_task_type, summary, tables
from tests.analysis.synthetic import episode_table

LEVELS = {"opd": 0.0, "sage_opd": 0.6, "no_norm": 0.05}


@pytest.fixture(scope="module")
def records():
    return from_episodes(episode_table(LEVELS, games=60, rng_seed=3))


def test_an_interval_of_a_rate_stays_a_rate_and_one_run_has_none():
    two = from_episodes(episode_table({"opd": 2.0}, seeds=(0, 1), games=6, run_sd=1.5, rng_seed=1))
    types = per_task_type(two)
    assert types["low"].min() >= 0
    assert types["high"].max() == 1
    one = from_episodes(episode_table({"opd": 0.0}, seeds=(0,), games=30))
    assert summary(one)[["low", "high"]].isna().all(axis=None)


def test_summary_is_the_plain_arithmetic(records):
    frame = summary(records).set_index("method")
    means = records.episodes.groupby(["method", "run"])["won"].mean()
    for method in LEVELS:
        runs = means[method]
        row = frame.loc[method]
        assert row["mean_micro"] == pytest.approx(runs.mean())
        assert row["sd_runs"] == pytest.approx(runs.std(ddof=1))
        interval = stats.t.interval(0.95, len(runs) - 1, runs.mean(), stats.sem(runs))
        assert (row["low"], row["high"]) == pytest.approx(interval)
        types = records.episodes.groupby(["method", "run", "task_type"])["won"].mean()
        assert row["mean_macro"] == pytest.approx(types[method].groupby("run").mean().mean())
    assert per_run(records)["wins"].sum() == records.episodes["won"].sum()
    assert len(per_task_type(records)) == 3 * 6


def test_what_the_context_cut_is_a_loss_and_counted_apart():
    table = episode_table({"opd": 0.0, "sage_opd": 0.5}, seeds=[0, 1, 2], games=20)
    table["status"] = np.where(table["won"] == 1, "won", "turn_budget")
    plain = summary(from_episodes(table)).set_index("method")
    lost = table.index[(table["method"] == "opd") & (table["won"] == 0)][:4]
    table.loc[lost, "status"] = "context_full"
    records = from_episodes(table.drop(columns="won"))
    row = compare(records, Question(baseline="opd")).iloc[0]
    assert (row["episodes_context_full"], row["episodes_not_ok"]) == (4, 0)
    cut = summary(records).set_index("method")
    assert cut["episodes_context_full"].to_dict() == {"opd": 4, "sage_opd": 0}
    assert cut["mean_micro"].to_dict() == plain["mean_micro"].to_dict()
    assert per_run(records)["episodes_context_full"].sum() == 4


def test_not_ok_is_counted_and_no_loss():
    table = episode_table({"opd": 0.0}, seeds=[0, 1], games=10)
    table["status"] = np.where(table["won"] == 1, "won", "lost")
    table.loc[0, ["status", "won"]] = ["env_error", 0]
    row = summary(from_episodes(table)).iloc[0]
    assert row["episodes_not_ok"] == 1
    first = table[(table["seed"] == 0) & (table.index > 0)]["won"].mean()
    second = table[table["seed"] == 1]["won"].mean()
    assert row["mean_micro"] == pytest.approx((first + second) / 2)


def test_one_run_has_no_spread():
    row = summary(from_episodes(episode_table({"opd": 0.0}, seeds=[0], games=10))).iloc[0]
    assert np.isnan(row[["sd_runs", "low", "high"]].astype(float)).all()


def test_compare_against_scipy(records):
    frame = compare(records, Question(baseline="opd", draws=500)).set_index("method")
    means = records.episodes.groupby(["method", "run"])["won"].mean()
    for method in ("sage_opd", "no_norm"):
        theirs = stats.ttest_ind(means[method], means["opd"], equal_var=False)
        row = frame.loc[method]
        assert (row["p"], row["t"], row["df"]) == pytest.approx((theirs.pvalue, theirs.statistic, theirs.df))
        assert row["difference"] == pytest.approx(means[method].mean() - means["opd"].mean())
        assert row["relative"] == pytest.approx(row["difference"] / means["opd"].mean())
        assert row["low"] < row["difference"] < row["high"]
        assert row["estimand"] == RECIPE
        assert row["p_permutation"] > 0
    assert frame.loc["sage_opd", "verdict"].startswith("better")
    assert "could see" in frame.loc["no_norm", "verdict"]


def test_same_input_same_output(records):
    pd.testing.assert_frame_equal(
        compare(records, Question(baseline="opd", draws=300)),
        compare(records, Question(baseline="opd", draws=300)),
    )


def test_family_gets_holm_and_the_rest_bh(records):
    frame = compare(records, Question(baseline="opd", family=("sage_opd",), draws=200)).set_index("method")
    assert frame.loc["sage_opd", "p_holm"] == pytest.approx(frame.loc["sage_opd", "p"])
    assert np.isnan(frame.loc["sage_opd", "q_bh"])
    assert np.isnan(frame.loc["no_norm", "p_holm"])
    with pytest.raises(Refusal, match="of which there is no run"):
        compare(records, Question(baseline="opd", family=("nobody",), draws=200))


def test_equivalence_margin(records):
    frame = compare(records, Question(baseline="opd", margin=0.5, draws=200)).set_index("method")
    assert frame.loc["no_norm", "p_equivalent"] < 0.001
    assert frame.loc["no_norm", "verdict"].startswith("equivalent within")


def test_single_runs_are_checkpoints():
    records = from_episodes(episode_table(LEVELS, seeds=[0], games=60))
    frame = compare(records, Question(baseline="opd")).set_index("method")
    assert (frame["estimand"] == CHECKPOINT).all()
    assert (frame["test"] == "McNemar, exact").all()
    assert frame[["p_holm", "q_bh", "p_permutation"]].isna().all().all()
    assert frame["verdict"].str.contains("checkpoints").all()


def test_one_run_against_many_has_no_test():
    table = episode_table(LEVELS, games=20)
    table = table[(table["method"] != "sage_opd") | (table["seed"] == 0)]
    row = (
        compare(from_episodes(table), Question(baseline="opd", draws=100)).set_index("method").loc["sage_opd"]
    )
    assert np.isnan(row["p"])
    assert row["verdict"] == "cannot tell: one run has no spread"


def test_checkpoint_pairs(records):
    frame = checkpoints(records, Question(baseline="opd"))
    assert len(frame) == 2 * 5
    assert (frame["test"] == "McNemar, exact").all()
    assert frame["low"].le(frame["difference"]).all()


def test_missing_baseline_names_the_methods(records):
    with pytest.raises(Refusal, match="no_norm, opd, sage_opd"):
        compare(records, Question(baseline="sft"))


def test_rollouts_are_averaged_within_a_game():
    table = cells(from_episodes(episode_table({"opd": 0.0}, seeds=[0, 1], games=8, rollouts=4)).episodes)
    assert table.values.shape == (2, 8)
    assert set(np.unique(table.values * 4)) <= {0, 1, 2, 3, 4}


def test_macro_weights_give_every_task_type_the_same():
    table = cells(
        from_episodes(episode_table({"opd": 0.0}, seeds=[0, 1], games=13)).episodes, average="macro"
    )
    assert table.weights.sum() == pytest.approx(1)
    assert np.bincount(table.strata, table.weights) == pytest.approx(np.full(6, 1 / 6))


def test_unknown_metric_and_average(records):
    with pytest.raises(Refusal, match="no column f1"):
        compare(records, Question(baseline="opd", metric="f1"))
    with pytest.raises(Refusal, match="micro"):
        compare(records, Question(baseline="opd", average="mean"))


def test_game_weights_resample_within_strata():
    rng = np.random.default_rng(0)
    strata = np.array([0, 0, 0, 1, 1])
    weights = np.array([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4])
    drawn = game_weights(strata, weights, 4000, rng)
    assert drawn.sum(axis=1) == pytest.approx(np.ones(4000))
    assert drawn[:, :3].sum(axis=1) == pytest.approx(np.full(4000, 0.5))
    assert drawn.mean(axis=0) == pytest.approx(weights, abs=0.01)


def test_resampled_means_equal_scipys_bootstrap():
    """With one run a side and games alone random, the draws have scipy's bootstrap standard error."""
    rng = np.random.default_rng(0)
    values = (rng.random((1, 80)) < 0.6).astype(float)
    weights = np.full(80, 1 / 80)
    ours = resampled_run_means(values, np.zeros(80, int), weights, 20_000, rng)[:, 0]
    theirs = stats.bootstrap((values[0],), np.mean, n_resamples=20_000, random_state=1, method="percentile")
    assert ours.std() == pytest.approx(theirs.standard_error, rel=0.02)
    assert ours.mean() == pytest.approx(values.mean(), abs=0.002)


def test_resampling_ignores_missing_cells():
    rng = np.random.default_rng(0)
    values = (rng.random((2, 50)) < 0.5).astype(float)
    values[0, :10] = np.nan
    drawn = resampled_run_means(values, np.zeros(50, int), np.full(50, 0.02), 4000, rng)
    assert drawn.mean(axis=0) == pytest.approx(np.nanmean(values, axis=1), abs=0.01)


def test_crossed_variance_is_unbiased():
    """Mean of the estimate over simulated tables equals the true variance of the difference of two means."""
    rng = np.random.default_rng(1)
    runs, games, reps = 6, 40, 600
    strata, weights = np.zeros(games, int), np.full(games, 1 / games)
    estimates, differences = [], []
    for _ in range(reps):
        # Additive normal model: run sd 0.3, method × game sd 1, residue sd 0.5; the game's own effect
        # cancels.
        arms = [
            rng.normal(0, 0.3, (runs, 1)) + rng.normal(0, 1, games) + rng.normal(0, 0.5, (runs, games))
            for _ in range(2)
        ]
        estimates.append(crossed_variance(arms[0], arms[1], strata, weights)[0])
        differences.append(arms[0].mean() - arms[1].mean())
    truth = 2 * (0.3**2 / runs + 1 / games + 0.5**2 / (runs * games))
    assert np.mean(estimates) == pytest.approx(truth, rel=0.05)
    assert np.var(differences) == pytest.approx(truth, rel=0.15)


def test_two_way_interval_of_one_fixed_table():
    table, _ = World(effect=0.15, seed_sd=0.04).draw(5, np.random.default_rng(7))
    values = table.reshape(10, -1)
    strata, weights = np.zeros(134, int), np.full(134, 1 / 134)
    result = two_way(values, np.arange(5, 10), np.arange(5), strata, weights, draws=4000)
    assert result.difference == pytest.approx(table[1].mean() - table[0].mean())
    assert result.low < result.percentile_high
    half = (result.high - result.low) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, result.df) * result.se, rel=0.05)


def test_world_has_the_stated_rate_and_spread():
    rng = np.random.default_rng(0)
    world = World(rate=0.6, effect=0.1, seed_sd=0.08, games=4000, run_game_sd=0.0, method_game_sd=0.0)
    table, truth = world.draw(300, rng)
    assert table[0].mean() == pytest.approx(0.6, abs=0.03)
    assert table[0].mean(axis=1).std() == pytest.approx(0.08, abs=0.012)
    assert truth == pytest.approx(0.1, abs=0.02)


def graded_table(**options):
    """Two methods on two splits; won 100 points, lost between −100 and 90."""
    splits = [
        episode_table({"opd": 0.0, "sage_opd": 0.4}, games=games, split=split, rng_seed=i, **options)
        for i, (split, games) in enumerate((("nq", 30), ("pop", 10)))
    ]
    table = pd.concat(splits, ignore_index=True)
    lost = np.random.default_rng(0).choice([-100.0, 0.0, 30.0, 90.0], len(table))
    table["score"] = np.where(table["won"] == 1, 100.0, lost)
    return table


def test_graded_scores_stand_beside_the_success_rate():
    table = graded_table()
    frame = summary(from_episodes(table)).set_index(["split", "method"])
    for (split, method), row in frame.iterrows():
        mine = table[(table["split"] == split) & (table["method"] == method)]
        runs = mine.groupby("seed")["score"].mean()
        assert row["score"] == pytest.approx(runs.mean())
        # A run mean varies at least as its games do over the runs, and as half a game of the range would.
        by_game = mine.pivot(index="task", columns="seed", values="score").var(axis=1, ddof=1)
        least = max(by_game.mean(), 0.5 * 200**2 / (len(by_game) + 1)) / len(by_game)
        error = np.sqrt(max(runs.var(ddof=1), least) / len(runs))
        interval = stats.t.interval(0.95, len(runs) - 1, runs.mean(), error)
        assert (row["score_low"], row["score_high"]) == pytest.approx(interval)
        clipped = mine.assign(score=mine["score"].clip(lower=0)).groupby("seed")["score"].mean()
        assert row["score_clipped"] == pytest.approx(clipped.mean())
    by_score = summary(from_episodes(table), Question(metric="score")).set_index(["split", "method"])
    assert by_score["mean_micro"].tolist() == pytest.approx(frame["score"].tolist())
    assert by_score["success"].tolist() == pytest.approx(frame["mean_micro"].tolist())
    assert "score" not in by_score
    positive = table.assign(score=table["score"].clip(lower=0))
    assert "score_clipped" not in summary(from_episodes(positive))
    assert "score" not in summary(from_episodes(table.assign(score=table["won"])))
    by_type = per_task_type(from_episodes(table))
    one = table[(table["split"] == "nq") & (table["method"] == "opd") & (table["task_type"] == "pick")]
    row = by_type.query("split == 'nq' and method == 'opd' and task_type == 'pick'").iloc[0]
    assert row["score"] == pytest.approx(one["score"].mean())


def test_scores_are_compared_like_success():
    table = graded_table(run_sd=1.0)
    frame = compare(from_episodes(table), Question(baseline="opd", metric="score", draws=500)).set_index(
        "split"
    )
    means = table.groupby(["split", "method", "seed"])["score"].mean()
    for split in ("nq", "pop"):
        theirs = stats.ttest_ind(means[split, "sage_opd"], means[split, "opd"], equal_var=False)
        assert frame.loc[split, "p"] == pytest.approx(theirs.pvalue)
        assert frame.loc[split, "low"] < frame.loc[split, "difference"] < frame.loc[split, "high"]
    with pytest.raises(Refusal, match="have no score"):
        compare(
            from_episodes(table.drop(columns="score")), Question(baseline="opd", metric="score", draws=50)
        )


def test_macro_average_over_splits_weighs_splits_alike():
    table = graded_table(run_sd=1.0)
    frame = over_splits(from_episodes(table)).set_index("method")
    runs = table.groupby(["method", "seed", "split"])["won"].mean().groupby(["method", "seed"]).mean()
    for method in ("opd", "sage_opd"):
        assert frame.loc[method, "mean"] == pytest.approx(runs[method].mean())
        assert frame.loc[method, "sd_runs"] == pytest.approx(runs[method].std(ddof=1))
    row = compare(from_episodes(table), Question(baseline="opd", average="splits", draws=500)).iloc[0]
    assert row["split"] == "macro-average of nq, pop"
    theirs = stats.ttest_ind(runs["sage_opd"], runs["opd"], equal_var=False)
    assert row["p"] == pytest.approx(theirs.pvalue)
    with pytest.raises(Refusal, match="at least two splits"):
        compare(from_episodes(table), Question(baseline="opd", average="splits", split="nq"))


def test_tasks_left_out_do_not_count():
    table = graded_table()
    gone = ["nq-0000", "nq-0001"]
    found = tables(from_episodes(table), Question(split="nq", leave_out=gone))
    rest = table[(table["split"] == "nq") & ~table["task"].isin(gone)]
    assert found["summary"]["games"].tolist() == [28, 28]
    means = rest.groupby("method")["won"].mean()
    assert found["summary"]["mean_micro"].tolist() == pytest.approx(means.tolist())
    assert found["summary_all_tasks"]["games"].tolist() == [30, 30]
    with pytest.raises(Refusal, match="None of the tasks to leave out"):
        summary(from_episodes(table), Question(leave_out=("nq-9999",)))


def test_runs_that_are_not_equally_far_or_not_everywhere_are_refused():
    table = episode_table({"opd": 0.0}, seeds=[0, 1], games=5, steps=(0, 50, 100))
    short = table[(table["seed"] == 0) | (table["step"] < 100)]
    with pytest.raises(Refusal, match="after 50 steps in run opd/alfworld/1 and after 100"):
        summary(from_episodes(short))
    assert summary(from_episodes(short), Question(step=50))["runs"].tolist() == [2]
    both = graded_table()
    lacking = both[~((both["seed"] == 3) & (both["split"] == "pop") & (both["method"] == "opd"))]
    with pytest.raises(Refusal, match="Run opd/alfworld/3 of opd was not evaluated on alfworld pop"):
        summary(from_episodes(lacking))
    assert len(summary(from_episodes(lacking), Question(split="nq"))) == 2

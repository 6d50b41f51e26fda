"""Episodes that are not ok: bounds beside every rate and difference, and verdicts that say what holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.compare import compare
from analysis.controls import controls
from analysis.load import from_episodes
from analysis.question import Question
from analysis.significance import holm, tost, welch
from analysis.summary import over_splits, per_run, per_task_type, summary
from analysis.verdict import could_see
from tests.analysis.synthetic import episode_table

LEVELS = {"opd": 0.0, "sage_opd": 0.0, "no_norm": 0.0}


def with_losses_renamed(
    levels=LEVELS, method="sage_opd", share=0.4, games=120, word="policy_error", **options
):
    """A share of the losses of one method is called an error."""
    table = episode_table(levels, games=games, run_sd=0.05, rng_seed=5, **options)
    table["status"] = np.where(table.pop("won") == 1, "won", "lost")
    lost = table.index[(table["method"] == method) & (table["status"] == "lost")]
    renamed = np.random.default_rng(0).permutation(lost)[: int(share * len(lost))]
    table.loc[renamed, "status"] = word
    return table


def test_losses_called_errors_make_nothing_better():
    row = (
        compare(from_episodes(with_losses_renamed()), Question(baseline="opd", draws=200))
        .set_index("method")
        .loc["sage_opd"]
    )
    assert row["q_bh"] < 0.05  # without a word it would be better
    assert row["verdict"].startswith("cannot tell: +0.")
    assert f"hangs on the {row['episodes_not_ok']} episodes that are not ok" in row["verdict"]
    assert row["bounds_low"] < row["difference"] < row["bounds_high"]


def test_the_bounds_by_hand():
    table = with_losses_renamed()
    row = (
        compare(from_episodes(table), Question(baseline="opd", margin=0.2, draws=200))
        .set_index("method")
        .loc["sage_opd"]
    )
    mine, base = (table[table["method"] == name] for name in ("sage_opd", "opd"))
    won = {
        name: side.groupby("seed")["status"].agg(lambda s: (s == "won").mean())
        for name, side in (("mine", mine), ("base", base))
    }
    lost = mine.groupby("seed")["status"].agg(lambda s: (s != "lost").mean())
    assert row["bounds_low"] == pytest.approx(won["mine"].mean() - won["base"].mean())
    assert row["bounds_high"] == pytest.approx(lost.mean() - won["base"].mean())
    assert (row["mean_low"], row["mean_high"]) == pytest.approx((won["mine"].mean(), lost.mean()))
    assert row["mean_baseline_low"] == row["mean_baseline_high"] == pytest.approx(won["base"].mean())
    assert row["p_if_won"] == pytest.approx(
        stats.ttest_ind(lost, won["base"], equal_var=False).pvalue, rel=0.5
    )
    cells = table.assign(w=(table["status"] == "won").astype(float)).pivot_table(
        index=["method", "seed"], columns="task", values="w"
    )
    bad = set(mine.loc[mine["status"] == "policy_error", "task"])
    kept = cells[[task for task in cells if task not in bad]]
    assert row["ok_games"] == kept.shape[1]
    gap = kept.loc["sage_opd"].mean(axis=1).mean() - kept.loc["opd"].mean(axis=1).mean()
    assert row["difference_ok_games"] == pytest.approx(gap)


def test_a_large_difference_survives_and_a_small_one_could_turn():
    levels = {"opd": 0.0, "sage_opd": 1.5}
    row = compare(
        from_episodes(with_losses_renamed(levels, share=0.1)), Question(baseline="opd", draws=200)
    ).iloc[0]
    assert row["verdict"].startswith("better")
    assert "survives the" in row["verdict"]
    table = with_losses_renamed({"opd": 0.5, "sage_opd": 0.0}, method="opd", share=0.0)
    wins = table.index[(table["method"] == "opd") & (table["status"] == "won")][::4]
    table.loc[wins, "status"] = "env_error"
    row = compare(from_episodes(table), Question(baseline="opd", draws=200)).iloc[0]
    assert row["verdict"].split(":")[0] in ("cannot tell", "worse (BH 0.000); survives the")
    assert "not ok" in row["verdict"]


def test_where_all_is_ok_there_are_no_bounds():
    table = with_losses_renamed(share=0.0)
    frame = compare(from_episodes(table), Question(baseline="opd", draws=200))
    assert "bounds_low" not in frame
    assert not frame["verdict"].str.contains("not ok").any()
    assert "bounds_low" not in summary(from_episodes(table))


def test_every_rate_shows_its_bounds():
    table = with_losses_renamed()
    records = from_episodes(table)
    rates = summary(records).set_index("method")
    assert rates.loc["opd", ["bounds_low", "bounds_high"]].isna().all()
    mine = table[table["method"] == "sage_opd"]["status"]
    assert rates.loc["sage_opd", "bounds_low"] == pytest.approx((mine == "won").mean())
    assert rates.loc["sage_opd", "bounds_high"] == pytest.approx((mine != "lost").mean())
    for frame in (per_run(records), per_task_type(records)):
        rows = frame[frame["method"] == "sage_opd"]
        assert (rows["bounds_low"] < rows["mean"]).all()
        assert (rows["mean"] < rows["bounds_high"]).all()
    other = with_losses_renamed(split="valid_seen")
    macro = over_splits(from_episodes(pd.concat([table, other]))).set_index("method").loc["sage_opd"]
    assert macro["bounds_low"] < macro["mean"] < macro["bounds_high"]


def test_graded_scores_are_bounded_by_the_scores_that_were_seen():
    table = with_losses_renamed()
    table["score"] = np.where(table["status"] == "won", 100.0, -20.0)
    row = (
        compare(from_episodes(table), Question(baseline="opd", metric="score", draws=200))
        .set_index("method")
        .loc["sage_opd"]
    )
    mine = table[table["method"] == "sage_opd"]["status"]
    assert row["mean_low"] == pytest.approx(120 * (mine == "won").mean() - 20)
    assert row["mean_high"] == pytest.approx(120 * (mine != "lost").mean() - 20)


def test_a_claim_that_hangs_on_them_is_not_held():
    levels = {"sage_opd": 0.0, "opd": 0.0, "learned_intervention": 0.0}
    frame = controls(from_episodes(with_losses_renamed(levels)), Question(draws=200)).set_index(
        ["method", "against"]
    )
    row = frame.loc[("sage_opd", "opd")]
    assert row["p_holm"] < 0.05
    assert row["verdict"] == "cannot tell (hangs on episodes that are not ok)"
    assert "whether they are lost or won" in row["line"]
    renamed = with_losses_renamed(levels, method="learned_intervention")
    frame = controls(from_episodes(renamed), Question(margin=0.03, draws=200)).set_index(
        ["method", "against"]
    )
    assert frame.loc[("learned_intervention", "sage_opd"), "verdict"].startswith("cannot tell")


def test_context_full_is_not_won_and_no_gap():
    table = with_losses_renamed(word="context_full")
    frame = compare(from_episodes(table), Question(baseline="opd", draws=200)).set_index("method")
    assert "bounds_low" not in frame
    assert frame.loc["sage_opd", "verdict"].startswith("not shown")
    assert summary(from_episodes(table)).set_index("method").loc["sage_opd", "episodes_context_full"] > 0


def test_equivalence_is_corrected_like_a_difference():
    table = episode_table({"opd": 0.0, "a": 0.0, "b": 0.0, "c": 0.3}, games=150, run_sd=0.05, rng_seed=2)
    records = from_episodes(table)
    frame = compare(records, Question(baseline="opd", family=("a", "b", "c"), margin=0.12, draws=200))
    assert frame["p_equivalent_corrected"].tolist() == pytest.approx(holm(frame["p_equivalent"]).tolist())
    alone = compare(
        records, Question(baseline="opd", family=("a",), methods=("a", "opd"), margin=0.12, draws=200)
    ).iloc[0]
    together = frame.set_index("method").loc["a"]
    assert alone["p_equivalent_corrected"] == alone["p_equivalent"] == together["p_equivalent"]
    assert together["p_equivalent_corrected"] > together["p_equivalent"]


def test_what_could_be_seen_uses_the_level_after_correction_and_its_own_uncertainty():
    records = from_episodes(episode_table({"opd": 0.0, "a": 0.1, "b": 0.1, "c": 0.1}, games=60, rng_seed=2))
    one = compare(records, Question(baseline="opd", methods=("a", "opd"), draws=200)).iloc[0]
    three = compare(records, Question(baseline="opd", draws=200)).set_index("method").loc["a"]
    assert (one["tests"], three["tests"]) == (1, 3)
    assert three["detectable"] == pytest.approx(could_see(one["se"], one["df"], 0.05 / 3, 0.95)[0])
    assert three["detectable"] > one["detectable"]
    assert three["detectable_low"] < three["detectable"] < three["detectable_high"]
    assert f"±{three['detectable']:.3f} ({three['detectable_low']:.3f} to" in three["verdict"]


def test_the_interval_of_what_could_be_seen_covers():
    """The detectable effect at the true standard error lies in the printed interval in 95 % of studies."""
    rng = np.random.default_rng(0)
    truth = could_see(np.sqrt(2 * 0.05**2 / 4), 6, 0.05, 0.95)[0]
    hits = 0
    for _ in range(300):
        test = welch(rng.normal(0, 0.05, 4), rng.normal(0, 0.05, 4))
        _, low, high = could_see(test.se, test.df, 0.05, 0.95)
        hits += low <= truth <= high
    assert hits / 300 > 0.92


def test_tost_is_statsmodels():
    from statsmodels.stats.weightstats import ttost_ind

    a, b = np.array([0.52, 0.48, 0.5, 0.55]), np.array([0.5, 0.47, 0.53, 0.49])
    theirs, *_ = ttost_ind(a, b, -0.08, 0.08, usevar="unequal")
    assert tost(a, b, 0.08) == pytest.approx(theirs)

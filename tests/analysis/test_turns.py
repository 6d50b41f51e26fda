"""Agreement and skipped turns: numbers against scikit-learn, truths of the simulation, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from sklearn import metrics

from analysis.agreement import (
    agreement,
    auroc,
    calibration_error,
    confusion,
    judge_against_judge,
    label_shares,
    labelled,
    measures,
    reliability,
)
from analysis.clusters import TURN_EDGES, bins_of, bounds, cluster_sums, clustered_rate, resampled_sums
from analysis.errors import Refusal
from analysis.load import load
from analysis.question import Question
from analysis.rates import tables as rate_tables
from analysis.rates import write_option
from analysis.skipped import aftermath, decided_turns, differences, errors, weighted
from analysis.skipped import tables as skipped_tables
from sage.config.components import register_components
from sage.config.registry import interventions
from tests.analysis.synthetic import JUDGE_ACCURACY, Study, write_study

TABLES = ("episodes", "turns", "steps")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    study = Study({"opd": 0.0, "sage_opd": 0.5}, seeds=(0, 1), games=4, train_steps=10, episodes_per_step=6)
    return load([write_study(tmp_path_factory.mktemp("runs"), study)], TABLES)


@pytest.fixture(scope="module")
def randomised(tmp_path_factory):
    study = Study({"sage_opd": 0.5}, seeds=(0, 1), games=4, train_steps=10, episodes_per_step=6, epsilon=0.4)
    return load([write_study(tmp_path_factory.mktemp("random"), study)], TABLES)


def test_measures_are_scikit_learns(records):
    turns = labelled(records)
    row = measures(turns, draws=100)
    a, b = turns["decided"], turns["truth"]
    assert row["kappa"] == pytest.approx(metrics.cohen_kappa_score(a, b))
    order = ["SKIP", "WEAK", "STRONG"]
    assert row["kappa_linear"] == pytest.approx(
        metrics.cohen_kappa_score(a, b, labels=order, weights="linear")
    )
    assert row["kappa_intervening"] == pytest.approx(metrics.cohen_kappa_score(a != "SKIP", b != "SKIP"))
    assert row["mcc"] == pytest.approx(metrics.matthews_corrcoef(b, a))
    assert row["agreement"] == pytest.approx(metrics.accuracy_score(b, a))
    assert row["sensitivity"] == pytest.approx(metrics.recall_score(b != "SKIP", a != "SKIP"))
    assert row["specificity"] == pytest.approx(metrics.recall_score(b == "SKIP", a == "SKIP"))
    assert row["prevalence"] == pytest.approx((b != "SKIP").mean())
    right = (a == b).to_numpy()
    confidence = turns["confidence"].to_numpy()
    assert row["auroc_confidence_right"] == pytest.approx(metrics.roc_auc_score(right, confidence))
    assert row["brier"] == pytest.approx(metrics.brier_score_loss(right, confidence))
    matrix = metrics.confusion_matrix(b, a, labels=order).T
    rule = confusion(turns)
    assert rule[[f"right_{x}" for x in order]].to_numpy().tolist() == matrix.tolist()


def test_the_judges_accuracy_is_found(records):
    row = measures(labelled(records), draws=500)
    # Turns that failed deterministically are not judged; of the judged ones JUDGE_ACCURACY are right.
    assert row["agreement_low"] < JUDGE_ACCURACY < row["agreement_high"]
    assert row["auroc_confidence_right_low"] > 0.7
    assert row["kappa_low"] < row["kappa"] < row["kappa_high"]


def test_auroc_draws_are_centred_on_the_exact_value(records):
    row = measures(labelled(records), draws=800)
    middle = (row["auroc_confidence_right_low"] + row["auroc_confidence_right_high"]) / 2
    assert middle == pytest.approx(row["auroc_confidence_right"], abs=0.01)


def test_auroc_with_ties_and_one_class():
    score, positive = np.array([1, 1, 2, 3, 3.0]), np.array([False, True, False, True, True])
    assert auroc(score, positive) == pytest.approx(metrics.roc_auc_score(positive, score))
    assert np.isnan(auroc(score, np.ones(5, bool)))


def test_perfect_and_constant_judges(records):
    turns = labelled(records)
    perfect = measures(turns.assign(decided=turns["truth"]), draws=50)
    assert perfect["kappa"] == pytest.approx(1)
    constant = measures(turns.assign(decided="SKIP"), draws=50)
    assert constant["kappa"] == pytest.approx(0)
    assert constant["sensitivity"] == 0


def test_calibration_of_a_calibrated_forecast():
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    assert calibration_error(confidence, rng.random(50_000) < confidence) < 0.01
    assert calibration_error(np.full(100, 0.9), np.zeros(100, bool)) == pytest.approx(0.9)


def test_groups(records):
    frame = agreement(records, Question(draws=50))
    assert set(frame["scope"]) == {"judge", "rule"}
    assert set(frame.loc[frame["scope"] == "rule", "by"]) == {"all", "failure kind"}
    for by in ("task type", "turn position"):
        part = frame[frame["by"] == by]
        assert part["turns"].sum() == frame.query("scope == 'judge' and by == 'all'")["turns"].sum()
    table = reliability(labelled(records))
    assert table["turns"].sum() == len(labelled(records))
    assert table["low"].le(table["right"]).all()


def test_label_shares_sum_to_one(records):
    shares = label_shares(records)
    for frame in shares.values():
        names = [c for c in frame if c.isupper()]
        assert frame[names].sum(axis=1).to_numpy() == pytest.approx(np.ones(len(frame)))


def test_two_judges(records):
    turns = records.turns[records.turns["method"] == "sage_opd"]
    same = judge_against_judge(turns, turns, Question(draws=50)).iloc[0]
    assert same["kappa"] == pytest.approx(1)
    other = turns.assign(observation="elsewhere")
    with pytest.raises(Refusal, match="share no judged turn"):
        judge_against_judge(turns, other, Question(draws=50))


def test_turns_are_needed(records):
    bare = records.__class__(runs=records.runs, episodes=records.episodes)
    with pytest.raises(Refusal, match="hold no turns"):
        labelled(bare)
    with pytest.raises(Refusal, match="No turn has both"):
        labelled(records, question=Question(methods=("opd",)))
    with pytest.raises(Refusal, match="No turn was skipped"):
        decided_turns(records, question=Question(methods=("opd",)))


def test_bins():
    assert list(bins_of([0, 2, 3, 25], TURN_EDGES).astype(str)) == ["0-2", "0-2", "3-5", "20+"]


def test_cluster_bootstrap_has_the_clusters_spread():
    """Clusters of 10 equal values: the standard error is that of the clusters, not of 10 times as many
    turns."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 1, 200)
    codes, values = np.repeat(np.arange(200), 10), np.repeat(level, 10)
    sums = cluster_sums(codes, np.stack([np.ones(2000), values], axis=1))
    drawn = resampled_sums(sums, 4000, rng)
    assert (drawn[:, 1] / drawn[:, 0]).std() == pytest.approx(level.std() / np.sqrt(200), rel=0.06)


def test_a_clustered_rate_knows_its_effective_number():
    from statsmodels.stats.proportion import proportion_confint

    hits = np.r_[np.ones(60), np.zeros(40)]
    # Turns that are all clusters of their own are independent; t for z makes 100 of them worth 97.6.
    alone = clustered_rate(hits, np.arange(100))
    worth = 99 * (1.959964 / 1.984217) ** 2
    assert alone == pytest.approx(proportion_confint(0.6 * worth, worth, method="wilson"), abs=1e-4)
    # Five equal turns an episode are worth one: design effect 20/19 × 5.
    alike = clustered_rate(hits, np.repeat(np.arange(20), 5))
    worth = 19 * (1.959964 / 2.093024) ** 2
    assert alike == pytest.approx(proportion_confint(0.6 * worth, worth, method="wilson"), abs=1e-4)
    # Never certain: 20 turns of 2 episodes without a miss count as two.
    low, high = clustered_rate(np.ones(20), np.repeat([0, 1], 10))
    assert (low, high) == (pytest.approx(proportion_confint(2, 2, method="wilson")[0]), 1.0)
    assert np.isnan(clustered_rate([], [])).all()


def test_few_clusters_have_no_bootstrap_interval():
    assert np.isnan(bounds(np.linspace(0, 1, 100), 0.95, clusters=9)).all()
    assert bounds(np.linspace(0, 1, 101), 0.9, clusters=10) == pytest.approx((0.05, 0.95))


def test_confidence_that_never_varies_is_no_forecast(records):
    turns = labelled(records).assign(confidence=1.0)
    assert "auroc_confidence_right" not in measures(turns, draws=20)
    assert reliability(turns).empty
    some = labelled(records).copy()
    some.loc[some.index[::2], "confidence"] = np.nan
    known = some[some["confidence"].notna()]
    right = (known["decided"] == known["truth"]).to_numpy()
    row = measures(some, draws=20)
    assert row["auroc_confidence_right"] == pytest.approx(auroc(known["confidence"].to_numpy(), right))
    assert row["brier_low"] < row["brier"] < row["brier_high"]


def test_kappa_over_runs_is_students(records):
    turns = labelled(records)
    kappas = [metrics.cohen_kappa_score(g["decided"], g["truth"]) for _, g in turns.groupby("run")]
    row = agreement(records, Question(draws=20)).query("scope == 'judge' and by == 'all'").iloc[0]
    assert row["runs"] == len(kappas)
    assert row["kappa_sd_runs"] == pytest.approx(np.std(kappas, ddof=1))
    half = stats.t.ppf(0.975, len(kappas) - 1) * np.std(kappas, ddof=1) / np.sqrt(len(kappas))
    assert row["kappa_runs_low"] == pytest.approx(np.mean(kappas) - half)


def test_wrong_decisions(records):
    frame = errors(decided_turns(records, question=Question(methods=("sage_opd",))))
    total = frame[frame["by"] == "all"].iloc[0]
    turns = decided_turns(records, question=Question(methods=("sage_opd",)))
    harm = turns[turns["oracle"] == "harm"]
    assert total["skipped_harm"] == pytest.approx((harm["weight"] == 0).mean())
    assert total["skipped_harm_low"] <= total["skipped_harm"] <= total["skipped_harm_high"]
    assert total["skipped_harm"] == pytest.approx((1 - JUDGE_ACCURACY) / 2, abs=0.06)
    for by in ("expert distance", "trajectory length", "turn position", "task type", "error type"):
        assert frame.loc[frame["by"] == by, "turns"].sum() == total["turns"]


def test_standardised_difference_is_the_formula(records):
    turns = decided_turns(records, question=Question(methods=("sage_opd",)))
    frame = differences(turns, Question(draws=100)).set_index("covariate")
    a = turns.loc[turns["supervised"], "divergence"]
    b = turns.loc[~turns["supervised"], "divergence"]
    expected = (a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2)
    assert frame.loc["divergence", "standardised_difference"] == pytest.approx(expected)
    assert abs(frame.loc["divergence", "standardised_difference"]) < 0.1


def test_progress_after_is_counted_within_the_episode(records):
    turns = decided_turns(records, question=Question(methods=("sage_opd",)), horizon=2)
    one = turns[turns["episode"] == turns["episode"].iloc[0]]
    after = one["expert_distance_after"].to_numpy(float)
    assert one["progress_after"].iloc[0] == pytest.approx(after[0] - after[2])
    assert np.isnan(one["progress_after"].iloc[-1])


def test_aftermath_of_equal_turns_is_zero(records):
    """In the simulation a turn's future does not depend on its label, so the matched difference covers
    zero."""
    turns = decided_turns(records, question=Question(methods=("sage_opd",)))
    row = aftermath(turns, Question(draws=300)).iloc[0]
    assert row["low"] < 0 < row["high"]
    assert row["matched"] > 20


def test_deterministic_rule_has_no_overlap(records):
    turns = decided_turns(records, question=Question(methods=("sage_opd",)))
    frame = weighted(turns, question=Question(draws=50))
    assert frame["refused"].str.contains("deterministic").all()


def test_weighting_undoes_the_selection(randomised):
    turns = decided_turns(randomised)
    bad = turns.assign(bad=(turns["oracle"] != "progress").astype(float))
    judged = bad[bad["label"].isin(["SKIP", "WEAK", "STRONG"])]
    truth = judged["bad"].mean()
    frame = weighted(bad, question=Question(draws=400), outcome="bad").set_index("label")
    skip = frame.loc["SKIP"]
    assert skip["plain"] < truth - 0.1
    assert skip["snips_low"] < truth < skip["snips_high"]
    assert skip["aipw_low"] < truth < skip["aipw_high"]
    assert (frame["refused"] == "").all()


def test_all_tables(randomised):
    found = skipped_tables(randomised, Question(draws=50))
    assert set(found) == {"errors", "differences", "aftermath", "weighted"}
    assert all(isinstance(frame, pd.DataFrame) and len(frame) for frame in found.values())


def test_rates_count_the_judges_words_and_become_an_option(records, tmp_path):
    rates = rate_tables(records)["rates"]
    assert set(rates["method"]) == {"sage_opd"}
    turns = records.turns
    judged = turns[(turns["phase"] == "train") & turns["label"].isin(["SKIP", "WEAK", "STRONG"])]
    whole = rates[rates["turn"] == "all"].iloc[0]
    assert whole["n"] == len(judged)
    assert whole["skip"] == pytest.approx((judged["label"] == "SKIP").mean())
    third = rates[rates["turn"] == "2"].iloc[0]
    assert third["weak"] == pytest.approx((judged[judged["turn"] == 2]["label"] == "WEAK").mean())

    write_option(rates, tmp_path / "intervention" / "counted.yaml")
    option = yaml.safe_load((tmp_path / "intervention" / "counted.yaml").read_text())
    option["rule"] = {"name": "never"}
    del option["defaults"]
    register_components()
    rule = interventions.build(option)
    assert rule.query is None
    assert rule.rates.at(2) == pytest.approx(tuple(third[["skip", "weak", "strong"]]), abs=1e-6)
    assert rule.rates.at(99) == pytest.approx(tuple(whole[["skip", "weak", "strong"]]), abs=1e-6)


def test_rates_refuse_what_has_no_judge_or_several(records, tmp_path):
    rates = rate_tables(records)["rates"]
    two = pd.concat([rates, rates.assign(method="other")])
    with pytest.raises(Refusal, match="needs one method and environment, here are"):
        write_option(two, tmp_path / "x.yaml")
    with pytest.raises(Refusal, match="give runs that had a judge"):
        rate_tables(replace(records, turns=records.turns[records.turns["method"] == "opd"]))

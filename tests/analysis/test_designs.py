"""Paired and blocked comparisons: held against scipy and statsmodels, what they see, and what they refuse."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from analysis.__main__ import main
from analysis.blocked import Blocks, dunnett, dunnett_of_p
from analysis.compare import compare
from analysis.controls import controls
from analysis.designs import design_of, error_at_margin
from analysis.errors import Refusal
from analysis.load import from_episodes, load
from analysis.pairs import correlation
from analysis.question import Question
from analysis.significance import equivalence, paired, sign_flips
from benchmarks.coverage_paired import table_of
from tests.analysis.planned import write_run
from tests.analysis.synthetic import episode_table


def luck_of_seeds(gaps, seeds=(0, 1, 2), games=200, luck=(0, 50, 20, 35, 8, 44)):
    """Methods whose runs win the first games: 60, the seed's luck, and for each seed what `gaps` says."""
    rows = [
        {
            "method": method,
            "env": "alfworld",
            "split": "dev",
            "seed": seed,
            "task": f"g{g:03d}",
            "won": g < wins,
        }
        for method, more in gaps.items()
        for i, seed in enumerate(seeds)
        for wins in [60 + luck[i] + more[i]]
        for g in range(games)
    ]
    return pd.DataFrame(rows).astype({"won": int})


@pytest.fixture(scope="module")
def four_methods():
    return luck_of_seeds(
        {"opd": (0, 1, -2, 3, 0), "a": (9, 12, 6, 11, 8), "b": (2, -3, 1, 0, 4), "c": (5, -6, 20, 1, -9)},
        seeds=(0, 1, 2, 3, 4),
    )


def means_of(table):
    return table.groupby(["method", "seed"], as_index=False)["won"].mean()


def by_least_squares(table):
    return smf.ols("won ~ C(method, Treatment('opd')) + C(seed)", means_of(table)).fit()


def test_pairs_and_blocks_see_what_seeds_share_and_welch_cannot():
    records = from_episodes(luck_of_seeds({"opd": (0, 0, 0), "other": (7, 10, 8)}))
    rows = {
        d: compare(records, Question(baseline="opd", design=d, draws=200)).iloc[0]
        for d in ("independent", "paired", "blocked")
    }
    assert rows["independent"]["p"] > 0.5
    assert rows["independent"]["verdict"].startswith("not shown")
    means = means_of(records.episodes).pivot(index="seed", columns="method", values="won")
    for design in ("paired", "blocked"):
        expected = stats.ttest_rel(means["other"], means["opd"])
        assert rows[design]["p"] == pytest.approx(expected.pvalue, abs=1e-12)
        assert rows[design]["t"] == pytest.approx(expected.statistic, abs=1e-9)
        assert rows[design]["verdict"].startswith("better")
        assert rows[design]["low"] > 0
        assert (rows[design]["other_design"], rows[design]["p_other"]) == (
            "independent",
            rows["independent"]["p"],
        )
        fit = by_least_squares(records.episodes)
        name = fit.tvalues.index[1]
        assert (rows[design]["t"], rows[design]["p"]) == pytest.approx(
            (fit.tvalues[name], fit.pvalues[name]), abs=1e-9
        )
    assert rows["independent"]["p_other"] == rows["paired"]["p"]
    assert rows["paired"]["pair_correlation_low"] > 0.8
    assert rows["paired"]["paired_by"].startswith("seed alone")


def test_blocks_are_the_least_squares_of_statsmodels_where_the_rest_of_all_methods_decides(four_methods):
    frame = compare(
        from_episodes(four_methods), Question(baseline="opd", design="blocked", draws=200)
    ).set_index("method")
    fit = by_least_squares(four_methods)
    for method, row in frame.iterrows():
        name = f"C(method, Treatment('opd'))[T.{method}]"
        assert row["difference"] == pytest.approx(fit.params[name], abs=1e-12)
        assert row["p_pooled"] == pytest.approx(fit.pvalues[name], abs=1e-9)
    pooled = frame[frame["spread"].str.startswith("the rest of all")]
    assert set(pooled.index) == {"a", "b"}
    for method, row in pooled.iterrows():
        name = f"C(method, Treatment('opd'))[T.{method}]"
        assert (row["t"], row["p"], row["se"]) == pytest.approx(
            (fit.tvalues[name], fit.pvalues[name], fit.bse[name]), abs=1e-9
        )
        low, high = fit.conf_int().loc[name]
        assert (row["welch_low"], row["welch_high"]) == pytest.approx((low, high), abs=1e-9)


def test_a_method_that_spreads_more_than_the_others_is_held_to_its_own_spread(four_methods):
    row = (
        compare(from_episodes(four_methods), Question(baseline="opd", design="blocked", draws=200))
        .set_index("method")
        .loc["c"]
    )
    assert row["spread"].startswith("runs of these two methods")
    assert row["p"] > row["p_pooled"]
    means = means_of(four_methods).pivot(index="seed", columns="method", values="won")
    rest = means.sub(means.mean(axis=1), axis=0)
    rest = rest - rest.mean()
    pooled = (rest**2).sum().sum() / 12
    own = {m: 4 / 2 * ((rest[m] ** 2).sum() / 4 - pooled / 4) for m in ("c", "opd")}  # Grubbs, by hand
    pairs = (means["c"] - means["opd"]).var(ddof=1)
    assert row["se"] == pytest.approx(np.sqrt(max(own["c"] + max(own["opd"], 0), pairs) / 5))
    assert 4 <= row["df"] <= 8


def test_missing_runs_are_least_squares_too(four_methods):
    some = four_methods[~((four_methods["method"] == "b") & (four_methods["seed"] == 3))]
    records = from_episodes(some)
    with pytest.raises(
        Refusal, match=r"opd seed 3 \(run .*\) has no partner on alfworld dev.*--unpaired drop"
    ):
        compare(records, Question(baseline="opd", design="paired"))
    with pytest.raises(Refusal, match=r"seed 3 .* has no partner"):
        compare(records, Question(baseline="opd", design="blocked"))
    frame = compare(
        records, Question(baseline="opd", design="blocked", unpaired="drop", draws=200)
    ).set_index("method")
    fit = by_least_squares(some)
    for method, row in frame.iterrows():
        name = f"C(method, Treatment('opd'))[T.{method}]"
        assert row["difference"] == pytest.approx(fit.params[name], abs=1e-12)
        assert row["p_pooled"] == pytest.approx(fit.pvalues[name], abs=1e-9)
    pairs = (
        compare(records, Question(baseline="opd", design="paired", unpaired="drop", draws=200))
        .set_index("method")
        .loc["b"]
    )
    assert (pairs["pairs"], pairs["runs"], pairs["runs_baseline"]) == (4, 4, 4)


def test_a_balanced_mixed_model_agrees_with_the_blocks(four_methods):
    means = means_of(four_methods).eval("won = 100 * won")
    model = smf.mixedlm("won ~ C(method, Treatment('opd'))", means, groups="seed").fit(reml=True)
    blocks = Blocks(means["won"].to_numpy(), list(means["method"]), list(means["seed"]))
    for method in ("a", "b", "c"):
        weights = blocks.weights(method, "opd")
        se = np.sqrt(blocks.mean_square * (weights @ weights))
        assert se == pytest.approx(model.bse[f"C(method, Treatment('opd'))[T.{method}]"], rel=1e-3)


def test_dunnett_is_scipys():
    rng = np.random.default_rng(4)
    samples = [rng.normal(0.4 * i, 1, 8) for i in range(5)]
    found = stats.dunnett(*samples[1:], control=samples[0], rng=np.random.default_rng(0))
    ours = [dunnett(t, 35, 4) for t in found.statistic]
    assert ours == pytest.approx(found.pvalue, abs=2e-4)
    assert [dunnett(t, df, 1) for t in (0.3, 2.0, 30.0) for df in (2, 8)] == pytest.approx(
        [2 * stats.t.sf(t, df) for t in (0.3, 2.0, 30.0) for df in (2, 8)], rel=1e-6, abs=1e-9
    )
    unrelated = stats.multivariate_t(shape=np.eye(3), df=5, seed=1)
    assert dunnett(2.1, 5, 3, 0.0) == pytest.approx(
        1 - unrelated.cdf([2.1] * 3, lower_limit=[-2.1] * 3), abs=2e-4
    )
    assert dunnett_of_p(2 * stats.t.sf(2.1, 5), 5, 3) == pytest.approx(dunnett(2.1, 5, 3))


def test_blocked_comparisons_are_corrected_by_dunnett_over_methods_and_bonferroni_over_places(four_methods):
    one = compare(
        from_episodes(four_methods), Question(baseline="opd", design="blocked", draws=200)
    ).set_index("method")
    for row in one.itertuples():
        assert row.p_dunnett == pytest.approx(max(row.p, dunnett(row.t, row.df, 3)))
    two = pd.concat([four_methods, four_methods.assign(split="other")])
    both = compare(from_episodes(two), Question(baseline="opd", design="blocked", draws=200))
    first = both[both["split"] == "dev"].set_index("method")
    assert first.loc["a", "p_dunnett"] == pytest.approx(2 * one.loc["a", "p_dunnett"])
    family = compare(
        from_episodes(four_methods), Question(baseline="opd", design="blocked", family=("a",), draws=200)
    )
    alone = family.set_index("method").loc["a"]
    assert alone["p_dunnett"] == pytest.approx(alone["p"])
    assert "(Dunnett " in alone["verdict"]


def test_sign_flips_are_scipys_permutations_of_pairs():
    d = np.array([0.04, -0.01, 0.05, 0.02, 0.03, 0.07, -0.02])
    expected = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flips(d) == (pytest.approx(expected), True)
    assert sign_flips(np.full(3, 0.1))[0] == 0.25
    many, exact = sign_flips(np.full(30, 0.1), draws=999)
    assert (many, exact) == (pytest.approx(1 / 1000), False)
    assert paired(d).p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)


def test_equal_pairs_are_not_certain_and_equal_results_say_nothing_about_their_scale():
    alike = luck_of_seeds({"opd": (0, 0, 0), "other": (2, 2, 2)})
    row = compare(
        from_episodes(alike), Question(baseline="opd", design="paired", draws=200, margin=0.1)
    ).iloc[0]
    assert row["spread"].startswith("games")
    one_game = np.sqrt(1 / (200 * 201))  # half a game each way for both runs
    assert row["se"] == pytest.approx(one_game / np.sqrt(3))
    assert 0.01 < row["p"] < 0.1
    assert row["low"] < row["difference"] < row["high"]


def test_the_correlation_of_pairs_is_the_intraclass_one_of_shrout_and_fleiss():
    a, b = np.array([0.5, 0.62, 0.41, 0.58]), np.array([0.52, 0.6, 0.47, 0.55])
    table = pd.DataFrame({"y": np.r_[a, b], "m": [0] * 4 + [1] * 4, "s": list(range(4)) * 2})
    anova = smf.ols("y ~ C(m) + C(s)", table).fit()
    seeds = 2 * np.var((a + b) / 2, ddof=1)
    f, reach = seeds / anova.mse_resid, stats.f.ppf(0.975, 3, 3)
    found = correlation(a, b)
    assert found.value == pytest.approx((f - 1) / (f + 1))
    assert (found.low, found.high) == pytest.approx(
        ((f / reach - 1) / (f / reach + 1), (f * reach - 1) / (f * reach + 1))
    )
    assert np.isnan(correlation(a[:1], b[:1]).value)
    assert np.isnan(correlation(a * 0, a * 0).value)


def test_the_interval_of_the_correlation_covers_it():
    rng, rho = np.random.default_rng(5), 0.8
    hits = 0
    for _ in range(1500):
        luck = rng.normal(size=3) * np.sqrt(rho)
        a, b = (luck + rng.normal(size=3) * np.sqrt(1 - rho) for _ in range(2))
        found = correlation(a, b)
        hits += found.low <= rho <= found.high
    assert 0.93 <= hits / 1500 <= 0.97


def test_episodes_that_are_not_ok_bound_a_paired_difference_with_its_own_test(four_methods):
    table = four_methods[four_methods["method"].isin(["opd", "a"])].copy()
    table["status"] = np.where(table["won"] == 1, "won", "lost")
    losses = table.index[(table["method"] == "a") & (table["won"] == 0)][:60]
    table.loc[losses, "status"] = "policy_error"
    records = from_episodes(table.drop(columns="won"))
    row = compare(records, Question(baseline="opd", design="paired", draws=200)).iloc[0]
    assert row["bounds_low"] < row["difference"] < row["bounds_high"]
    lost = compare(
        from_episodes(
            table.assign(status=table["status"].replace("policy_error", "lost")).drop(columns="won")
        ),
        Question(baseline="opd", design="paired", draws=200),
    ).iloc[0]
    assert row["bounds_low"] == pytest.approx(lost["difference"])
    assert row["p_if_lost"] == pytest.approx(lost["p"])


def test_controls_take_the_design(four_methods):
    names = {"a": "sage_opd", "b": "random_intervention", "c": "matched_scale", "opd": "opd"}
    records = from_episodes(four_methods.assign(method=four_methods["method"].map(names)))
    claim = "selective distillation beats standard distillation"
    found = {
        d: controls(records, Question(design=d, draws=200)).set_index("claim").loc[claim]
        for d in ("independent", "paired", "blocked")
    }
    assert found["independent"]["verdict"] == "not shown"
    assert found["paired"]["verdict"] == "holds"
    for design in ("paired", "blocked"):  # blocks are of all methods, the claim's two or not
        row = (
            compare(records, Question(baseline="opd", design=design, draws=200))
            .set_index("method")
            .loc["sage_opd"]
        )
        assert found[design]["p"] == pytest.approx(row["p"])


def test_games_that_all_pairs_share_make_the_interval_for_new_games_no_narrower_than_their_test():
    records = from_episodes(episode_table({"opd": 0.0, "other": 0.4}, seeds=range(5), games=40, rng_seed=2))
    row = compare(records, Question(baseline="opd", design="paired", draws=2000)).iloc[0]
    assert row["high"] - row["low"] > 0.6 * (row["welch_high"] - row["welch_low"])
    assert row["p_new_games"] > 0


def test_the_command_line_takes_a_design(tmp_path, capsys):
    file = tmp_path / "e.csv"
    luck_of_seeds({"opd": (0, 0, 0), "other": (7, 10, 8)}).to_csv(file, index=False)
    assert main(["compare", str(file), "--baseline", "opd", "--design", "paired", "--draws", "200"]) == 0
    assert "paired t on seed differences" in capsys.readouterr().out
    assert main(["compare", str(file), "--baseline", "opd", "--design", "crossed"]) == 2


def test_what_makes_two_runs_a_pair_is_recorded_and_checked(tmp_path):
    for method in ("opd", "sage_opd"):
        for seed in (0, 1):
            other = ["student.dtype=bfloat16"] if (method, seed) == ("opd", 1) else []
            folder = write_run(tmp_path / "runs", method, seed, None, other)
    said = json.loads((folder.path / "run.json").read_text())["pair"]
    assert (said["seed"], said["streams"]) == (1, "1, local")
    assert set(said) == {"seed", "games", "student", "streams"}
    records = replace_name(load([tmp_path / "runs"]))
    with pytest.raises(Refusal, match=r"seed 1 \(run .*are no pair: they differ in student; .*independent"):
        compare(records, Question(baseline="opd", design="paired"))
    row = compare(records, Question(baseline="opd", draws=200)).iloc[0]
    assert np.isnan(row.get("pairs", np.nan))  # one pair is left, which has no correlation


def replace_name(records):
    """Both recipes of opd under one name, as if nobody had told them apart."""
    frames = {
        name: getattr(records, name).assign(
            method=getattr(records, name)["method"].str.replace(r"^opd\[.*", "opd", regex=True)
        )
        for name in ("runs", "episodes")
    }
    return dataclasses.replace(records, **frames)


def test_pairs_that_lie_a_margin_apart_are_not_called_equal_more_often_than_planned():
    """All games that differ are lost by one method: a skewed count, of which few pairs show too little."""
    rng = np.random.default_rng(8)
    games, runs, margin, plain, ours = 60, 10, 0.05, 0, 0
    design, studies = design_of("paired"), 1500
    for _ in range(studies):
        lost = (rng.random((runs, games)) < margin).astype(float)
        table = table_of(np.stack([np.ones((runs, games)), 1 - lost]))
        test = design.test(table, "m0", "m1").test
        se = error_at_margin(design, table, "m0", "m1", test.se, margin)
        assert se >= test.se
        plain += equivalence(test.difference, test.se, test.df, margin) < 0.05
        ours += equivalence(test.difference, se, test.df, margin) < 0.05
    assert plain / studies > 0.05  # 0.063 in 200,000 studies of 134 games (docs/evidence/coverage.md)
    assert ours / studies < 0.05
    independent = design_of("independent")
    assert error_at_margin(independent, table, "m0", "m1", 0.01, margin) == 0.01

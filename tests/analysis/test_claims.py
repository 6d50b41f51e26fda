"""Controls, thresholds and plans: verdicts, selection bias, and what makes a result confirmatory."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.controls import CLAIMS, controls
from analysis.errors import Refusal
from analysis.load import from_episodes, load
from analysis.plan import detectables, freeze, frozen_path, read_plan
from analysis.plan_check import check, confirmatory
from analysis.power import plannable
from analysis.question import Question
from analysis.sweep import confirmation
from analysis.sweep import sweep as swept
from sage.records import run_ledger
from tests.analysis.synthetic import Study, episode_table, write_study

LEVELS = {
    "opd": 0.0,
    "sage_opd": 0.8,
    "random_intervention": 0.0,
    "inverted_intervention": 1.6,
    "no_norm": 0.8,
}


@pytest.fixture(scope="module")
def frame():
    records = from_episodes(episode_table(LEVELS, games=80, run_sd=0.1))
    return controls(records, Question(draws=300)).set_index(["method", "against"])


def test_verdicts(frame):
    assert frame.loc[("sage_opd", "random_intervention"), "verdict"] == "holds"
    assert frame.loc[("sage_opd", "inverted_intervention"), "verdict"] == "contradicted"
    assert frame.loc[("sage_opd", "no_norm"), "verdict"] == "not shown"
    assert frame.loc[("sage_opd", "matched_scale"), "verdict"] == "not run"
    assert len(frame) == len(CLAIMS)


def test_verdict_lines_can_be_read_alone(frame):
    line = frame.loc[("sage_opd", "random_intervention"), "line"]
    assert line.startswith("selection beats rate-matched random selection on valid_unseen: +0.")
    assert "5 and 5 runs: holds" in line
    assert "could see" in frame.loc[("sage_opd", "no_norm"), "line"]
    assert "not run" in frame.loc[("sage_opd", "matched_scale"), "line"]


def test_non_inferiority():
    same = {"sage_opd": 0.3, "learned_intervention": 0.3}
    records = from_episodes(episode_table(same, seeds=range(8), games=120, run_sd=0.05))
    found = controls(records, Question(margin=0.2, draws=200)).set_index("method")
    assert found.loc["learned_intervention", "verdict"] == "holds within 0.2"


def test_claims_about_the_macro_average_over_splits():
    levels = {"sage_opd": 0.3, "opd": 0.1, "learned_intervention": 0.3}
    small, large = (
        episode_table(levels, games=games, rng_seed=games, split=f"valid_{games}") for games in (20, 80)
    )
    records = from_episodes(pd.concat([small, large], ignore_index=True))
    found = controls(records, Question(average="splits", margin=0.3, draws=200)).set_index("method")
    assert set(found["split"]) == {"macro-average of valid_20, valid_80"}
    assert len(found) == len(CLAIMS)
    means = records.episodes.groupby(["method", "split"])["won"].mean().groupby("method").mean()
    row = found.loc["sage_opd"].query("against == 'opd'").iloc[0]
    assert row["difference"] == pytest.approx(means["sage_opd"] - means["opd"])
    assert found.loc["learned_intervention", "verdict"] == "holds within 0.3"
    with pytest.raises(Refusal, match="needs at least two splits"):
        controls(from_episodes(small), Question(average="splits"))


def test_controls_without_any_claim():
    with pytest.raises(Refusal, match="None of the claims"):
        controls(from_episodes(episode_table({"sft": 0.0})))


def sweep(seeds, settings=20, games=60, rng_seed=0):
    """All settings are equally good."""
    levels = {f"sage_opd[tau={i}]": 0.0 for i in range(settings)}
    table = episode_table(levels, seeds=seeds, games=games, run_sd=0.0, rng_seed=rng_seed)
    table["tau"] = table["method"].str.extract(r"=(\d+)\]")[0].astype(float)
    return table


def test_the_winner_of_equals_is_corrected():
    """Best of 20 equal settings: the raw winner is too good, the corrected one is near the truth on
    average."""
    raw, corrected = [], []
    for seed in range(30):
        table = sweep([0, 1, 2], rng_seed=seed)
        frame = swept(from_episodes(table), "tau", Question(draws=300))
        best = frame[frame["best"]].iloc[0]
        truth = table["won"].mean()
        raw.append(best["mean"] - truth)
        corrected.append(best["corrected"] - truth)
    assert np.mean(raw) > 0.04
    assert abs(np.mean(corrected)) < 0.5 * np.mean(raw)


def test_threshold_rows():
    frame = swept(from_episodes(sweep([0, 1], settings=3)), "tau", Question(draws=200))
    assert frame["tau"].tolist() == [0, 1, 2]
    assert frame["best"].sum() == 1
    assert frame["chosen_in_draws"].sum() == pytest.approx(1)
    one = swept(from_episodes(sweep([0], settings=3)), "tau", Question(draws=200))
    assert one["resampled"].str.startswith("games alone").all()
    with pytest.raises(Refusal, match="no setting 'alpha'"):
        swept(from_episodes(sweep([0])), "alpha")
    with pytest.raises(Refusal, match="at least two"):
        swept(from_episodes(sweep([0], settings=1)), "tau")


def test_confirmation_wants_fresh_seeds_and_games():
    first = from_episodes(sweep([0, 1], settings=3))
    winner = swept(first, "tau").query("best")["method"].iloc[0]
    fresh = episode_table({winner: 0.0, "opd": 0.0}, seeds=[10, 11, 12], split="test")
    frame = confirmation(first, from_episodes(fresh), "tau", Question(baseline="opd", draws=200))
    assert frame["method"].tolist() == [winner]
    assert frame["shrinkage"].iloc[0] == pytest.approx(frame["sweep_mean"].iloc[0] - frame["mean"].iloc[0])
    with pytest.raises(Refusal, match="Seed 1 took part"):
        confirmation(
            first,
            from_episodes(fresh.assign(seed=fresh["seed"] - 9)),
            "tau",
            Question(baseline="opd", draws=50),
        )
    with pytest.raises(Refusal, match="games took part"):
        confirmation(
            first,
            from_episodes(fresh.assign(task=fresh["task"].str[-4:].radd("valid_unseen-"))),
            "tau",
            Question(baseline="opd"),
        )


PLAN = {
    "title": "t",
    "metric": "won",
    "estimand": "recipe on this benchmark",
    "environments": ["alfworld"],
    "splits": ["valid_unseen"],
    "source": "generated",
    "seeds": [0, 1, 2],
    "manifests": {"alfworld": "abc"},
    "retries": "none",
    "alpha": 0.05,
    "power": 0.8,
    "hypotheses": [
        {"name": "h", "method": "sage_opd", "baseline": "opd", "direction": "greater", "margin": 0.3}
    ],
    "assumptions": {"rate": 0.5, "run_sd": 0.04, "games": 134},
}


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    return path


@pytest.fixture
def planned_runs(tmp_path, plan_file):
    study = Study(
        {"opd": 0.0, "sage_opd": 1.5},
        games=12,
        train_steps=2,
        episodes_per_step=1,
        plan=read_plan(plan_file).sha256,
        started=1_790_000_000.0,
    )
    root = write_study(tmp_path / "runs", study)
    for path in root.glob("*/attempt_1/provenance.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "manifest_digest": "abcdef"}))
    return root


def test_freeze_once_by_the_clock_and_in_the_ledger(plan_file, tmp_path):
    before = datetime.now(UTC) - timedelta(seconds=1)
    row = freeze(plan_file, tmp_path / "runs").iloc[0]
    assert before < datetime.fromisoformat(row["time"]) < datetime.now(UTC)
    assert row["sha256"] == read_plan(plan_file).sha256
    (entry,) = run_ledger.read(tmp_path / "runs").entries
    assert (entry["event"], entry["digest"], entry["plan"]) == ("freeze", row["sha256"], "p.yaml")
    plan_file.write_text("# a comment changes nothing\n" + plan_file.read_text())
    assert freeze(plan_file, tmp_path / "runs").iloc[0]["time"] == row["time"]
    assert len(run_ledger.read(tmp_path / "runs").entries) == 1
    plan_file.write_text(yaml.safe_dump({**PLAN, "alpha": 0.1}))
    with pytest.raises(Refusal, match="a changed plan is a new plan"):
        freeze(plan_file, tmp_path / "runs")


def test_a_plan_that_came_frozen_is_frozen_for_these_runs_too(plan_file, tmp_path):
    first = freeze(plan_file, tmp_path / "elsewhere").iloc[0]
    again = freeze(plan_file, tmp_path / "runs").iloc[0]
    assert again["time"] == first["time"]
    assert again["ledger"] > first["ledger"]
    assert again["other_plans_here"] == 0


def test_a_plan_of_format_1_stays_checkable_and_says_what_cannot_be_known(plan_file, planned_runs):
    """Records and plan from before the ledger: the hypothesis is tested, and what is not known is said."""
    frozen_path(plan_file).write_text(
        json.dumps({"format": 1, "sha256": read_plan(plan_file).sha256, "time": "2026-09-01T00:00:00+00:00"})
    )
    records = load([planned_runs])
    conditions = check(read_plan(plan_file), records).set_index("condition")["verdict"]
    unknown = {
        "freeze in the ledger",
        "ledger unbroken",
        "other plans owned up to",
        "retries within the rule",
        "runs started after the freeze",
        "start times as in the ledger",
        "records as they were written",
        "one version of the code",
    }
    assert set(conditions.index[conditions == "cannot be known"]) == unknown
    assert set(conditions[~conditions.index.isin(unknown)]) == {"met"}
    result = confirmatory(read_plan(plan_file), records, draws=200)
    assert result["status"].tolist() == ["exploratory: freeze in the ledger cannot be known"]
    assert result["verdict"].iloc[0] in ("supported", "not shown")


@pytest.mark.parametrize(
    ("change", "condition"),
    [
        ("no freeze", "plan frozen and unchanged"),
        ("other hash", "runs carry the plan's hash"),
        ("run missing", "set complete"),
        ("other games", "planned game manifests"),
        ("edited", "plan frozen and unchanged"),
    ],
)
def test_one_condition_not_met(plan_file, planned_runs, change, condition):
    if change != "no freeze":
        freeze(plan_file, plan_file.parent / "elsewhere")
    some = sorted(planned_runs.glob("*/attempt_1"))[0]
    provenance = json.loads((some / "provenance.json").read_text())
    if change == "other hash":
        (some / "provenance.json").write_text(json.dumps({**provenance, "plan_sha256": "0"}))
    if change == "other games":
        (some / "provenance.json").write_text(json.dumps({**provenance, "manifest_digest": "xyz"}))
    if change == "run missing":
        shutil.rmtree(some.parent)
    if change == "edited":
        plan_file.write_text(yaml.safe_dump({**PLAN, "alpha": 0.1}))
    records = load([planned_runs])
    found = check(read_plan(plan_file), records).set_index("condition")["verdict"]
    assert found[condition] == "not met"
    result = confirmatory(read_plan(plan_file), records, draws=100)
    assert result["status"].str.startswith("exploratory").all()


def test_unplanned_seeds_are_told_and_left_out(plan_file, planned_runs):
    plan_file.write_text(yaml.safe_dump({**PLAN, "seeds": [0, 1]}))
    records = load([planned_runs])
    found = check(read_plan(plan_file), records).set_index("condition")
    assert not found.loc["no run beyond the planned seeds", "met"]
    assert confirmatory(read_plan(plan_file), records, draws=100)["runs"].tolist() == [2]


def test_one_run_a_method_supports_no_hypothesis(plan_file, planned_runs):
    records = load([planned_runs])
    first = records.runs[records.runs["seed"] == 0]
    episodes = records.episodes[records.episodes["run"].isin(set(first["run"]))]
    records = replace(records, runs=first, episodes=episodes)
    (row,) = confirmatory(read_plan(plan_file), records, draws=100).to_dict("records")
    assert row["verdict"] == "cannot tell (one run has no spread)"
    assert np.isnan([row["p_tested"], row["p_holm"], row["low"], row["high"]]).all()
    assert row["status"].startswith("exploratory")


def test_a_plan_may_judge_games_of_two_sources_each_in_its_own_split(plan_file, planned_runs):
    both = {"splits": ["valid_unseen", "official_valid_unseen"], "source": ["generated", "official"]}
    records = load([planned_runs])
    seen = records.episodes[records.episodes["split"] == "valid_seen"]
    official = seen.assign(split="official_valid_unseen", source="official")
    records = replace(records, episodes=pd.concat([records.episodes, official], ignore_index=True))
    plan_file.write_text(yaml.safe_dump({**PLAN, **both}))
    result = confirmatory(read_plan(plan_file), records, draws=100)
    assert sorted(result["split"]) == sorted(both["splits"])
    smallest = result.loc[result["p_tested"].idxmin()]
    assert smallest["p_holm"] == pytest.approx(2 * smallest["p_tested"])  # one family
    plan_file.write_text(yaml.safe_dump({**PLAN, "splits": both["splits"]}))
    assert confirmatory(read_plan(plan_file), records, draws=100)["split"].tolist() == ["valid_unseen"]


def test_a_plan_about_the_macro_average_has_one_test_a_hypothesis(plan_file, planned_runs):
    splits = {"splits": ["valid_seen", "valid_unseen"]}
    records = load([planned_runs])
    plan_file.write_text(yaml.safe_dump({**PLAN, **splits}))
    each = detectables(read_plan(plan_file)).iloc[0]
    plan_file.write_text(yaml.safe_dump({**PLAN, **splits, "average": "splits"}))
    one = detectables(read_plan(plan_file)).iloc[0]
    assert one["detectable_after_holm"] == one["detectable"] < each["detectable_after_holm"]
    (row,) = confirmatory(read_plan(plan_file), records, draws=100).to_dict("records")
    won = records.episodes.query("phase == 'eval' and step == 2")
    means = won.groupby(["method", "split", "seed"])["won"].mean().groupby(["method", "seed"]).mean()
    means = means.groupby("method").mean()
    assert row["difference"] == pytest.approx(means["sage_opd"] - means["opd"])
    assert row["p_holm"] == row["p_tested"]


def test_detectable_of_a_plan(plan_file):
    row = detectables(read_plan(plan_file)).iloc[0]
    se = np.sqrt(2 * (0.04**2 + 0.125 / 134) / 3)
    assert row["detectable"] == pytest.approx(plannable(se, 3))
    assert row["sees_its_margin"] == "yes"


NEW = {
    "format": 2,
    "design": "independent",
    "retries": 1,
    "games": {"valid_unseen": 12},
    "not_ok": 0.05,
    "arms": {"opd": [], "sage_opd": ["intervention"]},
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seeds": [0]}, "at least two different"),
        ({"estimand": "x"}, "estimand is one of"),
        ({"average": "x"}, "average is one of"),
        ({"hypotheses": []}, "no hypothesis"),
        ({"extra": 1}, "unknown field"),
        ({"alpha": "a"}, "alpha must be float"),
        ({"hypotheses": [{**PLAN["hypotheses"][0], "direction": "up"}]}, "direction is one of"),
        (
            {"hypotheses": [{**PLAN["hypotheses"][0], "direction": "equivalent", "margin": 0}]},
            "margin above 0",
        ),
        ({"assumptions": {}}, "assumptions lacks"),
        ({"format": 2}, "lacks design"),
        ({**NEW, "format": 3}, "has format 3"),
        ({**NEW, "design": "pairs"}, "design 'pairs' is not known; it is one of independent, paired"),
        ({**NEW, "retries": "once more"}, "retries is a rule"),
        ({**NEW, "retries": -1}, "retries is a rule"),
        ({**NEW, "not_ok": 2.0}, "not_ok is a share"),
        ({**NEW, "games": {}}, "games names each of its splits"),
        ({**NEW, "arms": {"opd": []}}, "sage_opd is not so"),
        ({**NEW, "other_plans": -1}, "other_plans is the number"),
    ],
)
def test_bad_plans(tmp_path, change, sentence):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **change}))
    with pytest.raises(Refusal, match=sentence):
        read_plan(path)


def test_every_plan_in_conf_is_valid():
    from pathlib import Path

    paths = sorted(Path(__file__).parents[2].joinpath("conf", "plan").glob("*.yaml"))
    assert paths
    for path in paths:
        assert isinstance(detectables(read_plan(path)), pd.DataFrame)
        assert frozen_path(path).name.endswith(".frozen.json")

"""Ways to make a result look confirmatory, each on a study of its own, each caught by its own condition."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.cli import main
from analysis.errors import Refusal
from analysis.load import load
from analysis.plan import freeze, frozen_path, read_plan
from analysis.plan_check import check, confirmatory
from sage.records import provenance, run_ledger, seal
from tests.analysis.planned import (
    ARMS,
    PLAN,
    SEEDS,
    outcomes,
    write_plan,
    write_planned,
    write_run,
)

ALL_WON = pd.DataFrame({"task": [f"game-{g:02d}" for g in range(24)], "status": "won"})


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """(plan, runs) of a study that is as it was planned."""
    return write_planned(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def study(honest, tmp_path):
    """A copy of it to cheat with."""
    plan, runs = honest
    for name in (plan.name, frozen_path(plan).name):
        shutil.copy(plan.parent / name, tmp_path / name)
    return tmp_path / plan.name, Path(shutil.copytree(runs, tmp_path / "runs"))


def unmet(plan, runs):
    """Names of the conditions that are not met; the result is exploratory where there are some."""
    records = load([runs], tables=("episodes", "turns", "steps"))
    conditions = check(read_plan(plan), records)
    wrong = conditions[~conditions["met"]]
    assert (wrong["detail"].str.len() < 400).all()
    assert (wrong["detail"] != "").all()
    assert conditions["met"].equals(conditions["verdict"] == "met")
    try:
        (status,) = confirmatory(read_plan(plan), records, draws=100)["status"]
        assert (status == "confirmatory") == (not len(wrong))
    except Refusal:
        assert len(wrong)
    return wrong.set_index("condition")["detail"].to_dict()


def attempt_of(runs, method, seed=0):
    for path in sorted(runs.glob("*/attempt_1")):
        fields = json.loads((path / "run.json").read_text())["fields"]
        if fields["method"] == method and fields["seed"] == seed:
            return path
    raise AssertionError(f"no run of {method}")


def test_an_honest_study_is_confirmatory(honest, capsys):
    plan, runs = honest
    assert unmet(plan, runs) == {}
    (row,) = confirmatory(read_plan(plan), load([runs]), draws=100).to_dict("records")
    assert (row["verdict"], row["status"], row["test"]) == ("supported", "confirmatory", "Welch on run means")
    assert main(["plan", "check", str(plan), "--records", str(runs), "--table", "conditions"]) == 0
    assert "0 other plans were frozen here" in capsys.readouterr().out


def test_another_attempt_of_a_finished_seed(study):
    plan, runs = study
    again = write_run(runs, "sage_opd", 0, read_plan(plan).sha256, played=ALL_WON)
    assert again.attempt == 2
    found = unmet(plan, runs)["one finished attempt per run"]
    assert (
        "sage_opd, seed 0 was finished more than once (attempt 1 done; attempt 2 is in the numbers" in found
    )


def test_another_attempt_whose_folder_was_removed_is_still_in_the_ledger(study):
    plan, runs = study
    again = write_run(runs, "sage_opd", 0, read_plan(plan).sha256, played=ALL_WON)
    shutil.rmtree(attempt_of(runs, "sage_opd"))
    assert again.path.exists()
    assert "attempts 1, 2 by the ledger" in unmet(plan, runs)["one finished attempt per run"]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.steps=99", "trainer.steps"),
        ("trainer.learning_rate=0.01", "trainer.learning_rate"),
        ("evaluation.temperature=0.1", "evaluation.temperature"),
        ("evaluation.limit=20", "evaluation.limit"),
    ],
)
def test_other_settings_in_one_arm(tmp_path, override, key):
    other = {"overrides": (override,)}
    plan, runs = write_planned(tmp_path, lambda method, seed: other if method == "opd" else {})
    found = unmet(plan, runs)["settings equal but for the declared"]
    assert f"the arms differ in {key} (opd: {override.split('=')[1]}" in found


def test_other_settings_in_one_seed(tmp_path):
    other = {"overrides": ("trainer.steps=99",)}
    plan, runs = write_planned(tmp_path, lambda method, seed: other if (method, seed) == ("opd", 1) else {})
    assert unmet(plan, runs)["settings equal but for the declared"].startswith(
        "runs of one arm differ in trainer"
    )


def test_an_arm_may_be_declared_under_the_old_name_of_a_setting(tmp_path):
    shown = {"overrides": ("rollout.demonstration.player=expert", "name=sage_opd")}
    arms = ARMS | {"sage_opd": [*ARMS["sage_opd"], "rollout.gold"]}
    plan, runs = write_planned(tmp_path, lambda method, _: shown if method == "sage_opd" else {}, arms=arms)
    assert unmet(plan, runs) == {}
    undeclared = write_plan(tmp_path, "undeclared.yaml")
    assert any("rollout.demonstration.player" in detail for detail in unmet(undeclared, runs).values())


def test_other_settings_in_one_seed_of_both_arms(tmp_path):
    other = {"overrides": ("evaluation.temperature=0.1",)}
    plan, runs = write_planned(tmp_path, lambda method, seed: other if seed == 1 else {})
    found = unmet(plan, runs)
    assert found["settings equal but for the declared"] == "runs of one arm differ in evaluation.temperature"
    assert "set complete" not in found


def test_no_run_of_the_plan_is_left(study):
    plan, runs = study
    for path in runs.glob("*/attempt_1/episodes.parquet"):
        pd.read_parquet(path).assign(seed=9).to_parquet(path)
    assert "0 of 6 runs done" in unmet(plan, runs)["set complete"]


@pytest.mark.parametrize("content", ["", "[]", "{}", "no json", '{"sha256": 5, "time": "2026-01-02"}'])
def test_a_frozen_file_that_is_none_is_refused_in_one_sentence(study, content, capsys):
    plan, runs = study
    frozen_path(plan).write_text(content)
    assert main(["plan", "check", str(plan), "--records", str(runs)]) == 2
    assert "is not what freezing a plan writes" in capsys.readouterr().err


def test_wins_flipped_beside_their_status_take_one_run_out_and_stop_no_other(study):
    plan, runs = study
    path = attempt_of(runs, "sage_opd") / "episodes.parquet"
    pd.read_parquet(path).assign(won=True).to_parquet(path)
    records = load([runs])
    assert records.runs["used"].sum() == 5
    assert any("won and status contradict each other" in note for note in records.notes)
    assert "5 of 6 runs done" in unmet(plan, runs)["set complete"]


def test_a_run_copied_under_another_name_is_refused_with_both_places(study):
    _, runs = study
    shutil.copytree(attempt_of(runs, "sage_opd").parent, runs / "0123456789ab")
    with pytest.raises(Refusal, match=r"is there more than once \(in 0123456789ab/attempt_1 and "):
        load([runs])


def test_other_games_in_one_arm(tmp_path):
    other = {"manifest": "0" * 64}
    plan, runs = write_planned(tmp_path, lambda method, seed: other if method == "opd" else {})
    assert "opd, seed 0 played 000000000000" in unmet(plan, runs)["planned game manifests"]


def test_games_left_out_of_one_run_or_played_twice(tmp_path):
    fewer = {"played": outcomes("opd", 1).iloc[:-2]}
    plan, runs = write_planned(tmp_path, lambda method, seed: fewer if (method, seed) == ("opd", 1) else {})
    found = unmet(plan, runs)
    assert (
        "opd, seed 1 lacks 2 games of valid_unseen, first game-22"
        in found["each planned game once in every run"]
    )


def test_fewer_games_than_planned_in_every_run(tmp_path):
    plan, runs = write_planned(tmp_path, lambda method, seed: {"played": outcomes(method, seed).iloc[:20]})
    found = unmet(plan, runs)["each planned game once in every run"]
    assert found == "alfworld valid_unseen has 20 games, planned are 24"


def test_other_code_in_one_arm(tmp_path, monkeypatch):
    def change(method, seed):
        source = "beef" * 16 if method == "opd" else "cafe" * 16
        monkeypatch.setattr(provenance, "source_digest", lambda *_: source)
        return {}

    plan, runs = write_planned(tmp_path, change)
    found = unmet(plan, runs)["one version of the code"]
    assert found.startswith("2 versions of the code")


def test_losses_renamed(tmp_path):
    def change(method, seed):
        played = outcomes(method, seed, 0.55 if method == "opd" else 0.6)
        if method == "sage_opd":
            played.loc[played["status"] == "lost", "status"] = "policy_error"
        return {"played": played}

    plan, runs = write_planned(tmp_path, change)
    found = unmet(plan, runs)
    assert "of its episodes not ok; the ceiling is 5.0%" in found["not ok below the ceiling"]
    worst = found["verdict the same in the worst case"]
    assert "it is supported, and not shown where the" in worst
    assert "count against it" in worst


def test_methods_swapped_in_a_table(study):
    plan, runs = study
    for method, other in (("opd", "sage_opd"), ("sage_opd", "opd")):
        path = attempt_of(runs, method) / "episodes.parquet"
        pd.read_parquet(path).assign(method=other).to_parquet(path)
    assert "episodes.parquet was changed" in unmet(plan, runs)["records as they were written"]


def flip_wins(runs):
    path = attempt_of(runs, "sage_opd") / "episodes.parquet"
    pd.read_parquet(path).assign(won=True, status="won").to_parquet(path)
    return path


def test_wins_flipped(study):
    plan, runs = study
    flip_wins(runs)
    found = unmet(plan, runs)["records as they were written"]
    assert found == "sage_opd, seed 0: episodes.parquet was changed after the run had ended"


def test_wins_flipped_and_the_digest_written_anew(study):
    plan, runs = study
    path = flip_wins(runs)
    status = json.loads((path.parent / "status.json").read_text())
    status["sha256"]["episodes.parquet"] = seal.file_digest(path)
    (path.parent / "status.json").write_text(json.dumps(status))
    found = unmet(plan, runs)["records as they were written"]
    assert "the digests in status.json are not those that the ledger has" in found


def test_start_times_moved(study):
    plan, runs = study
    path = attempt_of(runs, "opd") / "status.json"
    status = json.loads(path.read_text())
    path.write_text(json.dumps(status | {"started": status["started"] + 86_400}))
    assert unmet(plan, runs)["start times as in the ledger"].startswith("opd, seed 0 began ")


def test_a_hash_written_by_hand(study):
    plan, runs = study
    new = write_plan(plan.parent, "other.yaml", title="Another question")
    freeze(new, runs)
    sha = read_plan(new).sha256
    for path in runs.glob("*/attempt_1/provenance.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "plan_sha256": sha}))
    found = unmet(new, runs)
    assert "provenance.json was changed after the run had ended" in found["records as they were written"]
    assert "before the freeze" in found["runs started after the freeze"]


def test_runs_without_the_plans_hash(tmp_path):
    plan, runs = write_plan(tmp_path), tmp_path / "runs"
    freeze(plan, runs)
    for method in ARMS:
        for seed in SEEDS:
            write_run(runs, method, seed, None)
    assert unmet(plan, runs) == {"runs carry the plan's hash": "opd, seed 0 carries no plan and 5 more"}


def test_a_freeze_backdated(tmp_path, capsys):
    plan, runs = write_plan(tmp_path), tmp_path / "runs"
    for method in ARMS:
        for seed in SEEDS:
            write_run(runs, method, seed, read_plan(plan).sha256)
    freeze(plan, runs)
    frozen = json.loads(frozen_path(plan).read_text())
    frozen_path(plan).write_text(json.dumps(frozen | {"time": "2020-01-01T00:00:00+00:00"}))
    assert "before the freeze" in unmet(plan, runs)["runs started after the freeze"]
    assert main(["plan", "freeze", str(plan), "--time", "2020-01-01T00:00:00+00:00"]) == 2
    assert "--time" in capsys.readouterr().err


def test_a_freeze_that_no_ledger_has(study):
    plan, runs = study
    new = write_plan(plan.parent, "new.yaml", title="New")
    frozen = {"sha256": read_plan(new).sha256, "time": "2020-01-01T00:00:00+00:00"}
    frozen_path(new).write_text(json.dumps(frozen))
    found = unmet(new, runs)
    assert found["freeze in the ledger"] == "the ledger beside these runs has no freeze of this plan"


def test_ten_plans_frozen_and_one_reported(tmp_path):
    runs = tmp_path / "runs"
    for number in range(9):
        margin = {"hypotheses": [{**PLAN["hypotheses"][0], "margin": 0.01 * (number + 1)}]}
        freeze(write_plan(tmp_path, f"plan_{number}.yaml", **margin, title=f"Number {number}"), runs)
    plan, _ = write_planned(tmp_path)
    found = unmet(plan, runs)["other plans owned up to"]
    assert found.startswith("9 other plans were frozen here before its runs: plan_0.yaml, plan_1.yaml")


def test_plans_that_are_owned_up_to_are_no_obstacle(tmp_path):
    runs = tmp_path / "runs"
    for number in range(2):
        freeze(write_plan(tmp_path, f"plan_{number}.yaml", title=f"Number {number}"), runs)
    plan, _ = write_planned(tmp_path, other_plans=2)
    assert unmet(plan, runs) == {}


def test_a_run_of_the_declared_seeds_left_out(study):
    plan, runs = study
    shutil.rmtree(attempt_of(runs, "opd", 2).parent)
    found = unmet(plan, runs)
    assert found["set complete"] == "5 of 6 runs done; first missing: opd on alfworld, seed 2"
    assert "no run beyond the planned seeds" not in found


def test_seeds_exchanged_for_better_ones(study):
    plan, runs = study
    write_run(runs, "sage_opd", 7, read_plan(plan).sha256, played=ALL_WON)
    assert unmet(plan, runs)["no run beyond the planned seeds"] == "unplanned seeds: 7"


def test_lines_taken_out_of_the_ledger(study):
    plan, runs = study
    path = runs / run_ledger.NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert "does not follow the line before it" in unmet(plan, runs)["ledger unbroken"]


def test_the_plan_changed_after_the_freeze(study):
    plan, runs = study
    plan.write_text(yaml.safe_dump({**PLAN, "alpha": 0.2}))
    assert unmet(plan, runs)["plan frozen and unchanged"] == "changed after it was frozen"


def test_a_failed_run_may_start_again_as_often_as_the_rule_says(tmp_path):
    plan, runs = write_plan(tmp_path), tmp_path / "runs"
    freeze(plan, runs)
    sha = read_plan(plan).sha256
    write_run(runs, "opd", 0, sha, finish=False)
    for method in ARMS:
        for seed in SEEDS:
            write_run(runs, method, seed, sha)
    assert unmet(plan, runs) == {}
    conditions = check(read_plan(plan), load([runs])).set_index("condition")
    assert "opd seed 0 attempt 1 failed" in conditions.loc["retries within the rule", "detail"]
    strict = write_plan(tmp_path, "strict.yaml", retries=0)
    freeze(strict, runs)
    assert "opd, seed 0 was started 2 times" in unmet(strict, runs)["retries within the rule"]


def test_records_without_a_ledger_cannot_be_known(study):
    plan, runs = study
    (runs / run_ledger.NAME).unlink()
    records = load([runs])
    conditions = check(read_plan(plan), records).set_index("condition")["verdict"]
    unknown = set(conditions.index[conditions == "cannot be known"])
    assert {"freeze in the ledger", "runs started after the freeze", "ledger unbroken"} <= unknown
    (status,) = confirmatory(read_plan(plan), records, draws=100)["status"]
    assert status == "exploratory: freeze in the ledger cannot be known"


def test_every_condition_that_is_not_met_has_a_way_out(study):
    plan, runs = study
    (runs / run_ledger.NAME).unlink()
    shutil.rmtree(attempt_of(runs, "opd", 2).parent)
    conditions = check(read_plan(plan), load([runs]))
    wrong = conditions[conditions["verdict"] == "not met"]
    assert len(wrong)
    assert (wrong["way_out"] != "").all()


def test_new_games_get_the_two_way_test(honest, tmp_path):
    _, runs = honest
    new = write_plan(tmp_path, estimand="recipe on new games")
    records = load([runs])
    (mine,) = confirmatory(read_plan(new), records, draws=100).to_dict("records")
    (welch,) = confirmatory(read_plan(write_plan(tmp_path, "b.yaml")), records, draws=100).to_dict("records")
    assert mine["test"] == "t, runs and games"
    assert mine["p_tested"] != welch["p_tested"]
    assert np.isfinite(mine["p_tested"])

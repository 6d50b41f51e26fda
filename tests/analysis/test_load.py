"""Loading: what is read, what is refused, and that nothing unfinished disappears."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.check import select
from analysis.errors import Refusal
from analysis.load import from_episodes, load
from analysis.question import Question
from tests.analysis.synthetic import Study, episode_table, write_study

LEVELS = {"opd": 0.0, "sage_opd": 0.5}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(
        tmp_path_factory.mktemp("runs"), Study(LEVELS, games=6, train_steps=2, episodes_per_step=1)
    )


@pytest.fixture
def copy(study, tmp_path):
    return shutil.copytree(study, tmp_path / "runs")


def attempts(root):
    return sorted(root.glob("*/attempt_*"))


def test_run_directories(study):
    records = load([study], tables=("episodes", "turns", "steps"))
    assert len(records.runs) == 6
    assert records.runs["used"].all()
    assert set(records.runs["method"]) == set(LEVELS)
    assert len(records.turns) > 0
    assert len(records.steps) == 6 * 2
    assert records.notes == ()
    assert records.runs["started"].iloc[0].endswith("+00:00")


def test_one_attempt_directory(study):
    assert len(load([attempts(study)[0]]).runs) == 1


def test_csv_equals_frame(tmp_path):
    table = episode_table(LEVELS, games=4)
    table.to_csv(tmp_path / "e.csv", index=False)
    got = load([tmp_path / "e.csv"]).episodes
    want = from_episodes(table).episodes
    assert got["won"].tolist() == want["won"].tolist()
    assert got["run"].nunique() == 10
    assert got["phase"].unique().tolist() == ["eval"]


def test_won_is_read_from_text_and_status():
    table = episode_table(LEVELS, seeds=[0], games=3)
    words = table.assign(won=["true", "False", "1", "0", "TRUE", "0.0"])
    assert from_episodes(words).episodes["won"].tolist() == [1, 0, 1, 0, 1, 0]
    status = table.drop(columns="won").assign(
        status=["won", "lost", "turn_budget", "env_error", "won", "lost"]
    )
    assert from_episodes(status).episodes["won"].fillna(-1).tolist() == [1, 0, 0, -1, 1, 0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns=["task"]), "lacks the column"),
        (lambda t: t.drop(columns=["won"]), "neither a column won"),
        (lambda t: t.assign(won=0.5), "must be 0/1"),
        (lambda t: t.assign(seed=None), "rows without a seed"),
    ],
)
def test_bad_tables_are_refused(change, sentence):
    with pytest.raises(Refusal, match=sentence):
        from_episodes(change(episode_table(LEVELS, seeds=[0], games=3)))


def test_failed_run_is_noted_and_left_out(copy):
    broken = attempts(copy)[0]
    (broken / "status.json").write_text(json.dumps({"state": "failed", "reason": "The GPU fell off."}))
    records = load([copy])
    assert int(records.runs["used"].sum()) == 5
    assert records.unused["reason"].tolist() == ["The GPU fell off."]
    assert any("The GPU fell off." in note for note in records.notes)
    assert broken.parent.name not in set(records.episodes["run"])


def test_failed_run_without_tables_keeps_its_names(copy):
    broken = attempts(copy)[0]
    (broken / "status.json").write_text(json.dumps({"state": "failed", "reason": "x"}))
    for file in broken.glob("*.parquet"):
        file.unlink()
    row = load([copy]).unused.iloc[0]
    assert row["method"] in LEVELS
    assert row["seed"] in (0, 1, 2)


def test_episodes_that_the_context_cut_are_said(tmp_path):
    table = episode_table(LEVELS, games=4)
    method = table["method"].iloc[0]
    table["status"] = np.where(table["won"] == 1, "won", "lost")
    lost = table.index[(table["method"] == method) & (table["won"] == 0)][:1]
    table.loc[lost, "status"] = "context_full"
    table.to_csv(tmp_path / "e.csv", index=False)
    (note,) = load([tmp_path / "e.csv"]).notes
    count = (table["method"] == method).sum()
    assert note.startswith(f"1 of {count} evaluation episodes of {method} on alfworld were cut")


def test_later_attempt_replaces_failed_one(copy):
    first = attempts(copy)[0]
    second = shutil.copytree(first, first.with_name("attempt_2"))
    (first / "status.json").write_text(json.dumps({"state": "failed", "reason": "x"}))
    records = load([copy])
    assert records.runs["used"].all()
    assert records.runs["attempt"].max() == 2
    assert any("more than one attempt: attempt 1 failed" in note for note in records.notes)
    (second / "status.json").write_text(json.dumps({"state": "running"}))
    assert int(load([copy]).runs["used"].sum()) == 5


def newer(attempt):
    import pyarrow.parquet as pq

    path = attempt / "episodes.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"sage_format": b"99"}), path)


DAMAGES = {
    "record format 99": newer,
    "status.json is cut": lambda attempt: (attempt / "status.json").write_text('{"state": "do'),
    "status.json is empty": lambda attempt: (attempt / "status.json").write_text(""),
    "state is 'paused'": lambda attempt: (attempt / "status.json").write_text('{"state": "paused"}'),
    "episodes.parquet is cut": lambda attempt: os.truncate(attempt / "episodes.parquet", 900),
    "run.json is cut": lambda attempt: (attempt / "run.json").write_text("{"),
}


@pytest.mark.parametrize("told", DAMAGES)
def test_a_damaged_run_is_noted_and_the_others_go_on(copy, told):
    DAMAGES[told](attempts(copy)[0])
    records = load([copy])
    assert int(records.runs["used"].sum()) == 5
    assert records.unused["state"].tolist() == ["damaged"]
    (note,) = [note for note in records.notes if told in note]
    assert len(note) < 400


def test_a_copy_beside_the_attempts_is_noted_and_counts_nowhere(copy):
    first = attempts(copy)[0]
    shutil.copytree(first, first.with_name("attempt_1.bak"))
    records = load([copy])
    assert int(records.runs["used"].sum()) == 6
    assert any("attempt_1.bak is no attempt" in note for note in records.notes)


def test_damaged_provenance_is_noted_and_the_run_counts(copy):
    (attempts(copy)[0] / "provenance.json").write_text("[1, 2")
    records = load([copy])
    assert int(records.runs["used"].sum()) == 6
    assert any("provenance.json is cut" in note for note in records.notes)


def test_different_configs_under_one_name(copy):
    path = attempts(copy)[0] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["confidence"]["threshold"] = 0.9
    path.write_text(yaml.safe_dump(config))
    assert any("[confidence.threshold=0.9]" in method for method in load([copy]).runs["method"])
    varied = load([copy], vary=["confidence.threshold"])
    assert any("[threshold=0.9]" in method for method in varied.runs["method"])
    assert len(select(varied)) == len(select(load([attempts(copy)[1]]))) * 6


def test_invocation_keys_are_no_difference(copy):
    path = attempts(copy)[0] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["launch"]["runs_dir"], config["trainer"]["threads"] = "elsewhere", 7  # as in version 1
    path.write_text(yaml.safe_dump(config))
    assert len(select(load([copy])))


def test_same_seed_twice(copy):
    first = attempts(copy)[0]
    again = shutil.copytree(first, copy / "ffffffffffff" / "attempt_1")
    for name in ("episodes", "turns", "steps"):
        frame = pd.read_parquet(again / f"{name}.parquet").assign(run="ffffffffffff")
        frame.to_parquet(again / f"{name}.parquet")
    with pytest.raises(Refusal, match="more than once"):
        select(load([copy]))


def test_same_run_from_two_inputs(study):
    with pytest.raises(Refusal, match="there more than once"):
        load([study, attempts(study)[0]])


def test_duplicated_game():
    table = episode_table(LEVELS, games=4)
    with pytest.raises(Refusal, match="duplicated episodes"):
        select(from_episodes(pd.concat([table, table.iloc[:1]])))


def test_one_game_under_two_names():
    table = episode_table(LEVELS, games=4).assign(game_sha256="same")
    with pytest.raises(Refusal, match="same game file under two names"):
        select(from_episodes(table))


def test_missing_game_and_the_way_out():
    table = episode_table(LEVELS, games=4).iloc[1:]
    with pytest.raises(Refusal, match=r"did not play the same games.*played 3 of 4"):
        select(from_episodes(table))
    common = select(from_episodes(table), Question(games="common"))
    assert common["task"].nunique() == 3


def test_mixed_sources_and_the_way_out():
    table = episode_table(LEVELS, games=4)
    mixed = pd.concat([table, table.assign(source="official", task="official " + table["task"])])
    with pytest.raises(Refusal, match="mixes game sources"):
        select(from_episodes(mixed))
    assert set(select(from_episodes(mixed), Question(source="official"))["source"]) == {"official"}


def test_last_step_is_taken_unless_named(study):
    records = load([study])
    assert set(select(records)["step"]) == {2}
    assert set(select(records, Question(step=0))["step"]) == {0}
    with pytest.raises(Refusal, match="No run was evaluated at step 7"):
        select(records, Question(step=7))


@pytest.mark.parametrize("inputs", [[], ["nowhere"], ["pyproject.toml"]])
def test_inputs_that_are_none(inputs):
    with pytest.raises(Refusal):
        load(inputs)

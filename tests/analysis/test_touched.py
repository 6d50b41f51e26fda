"""Records that were changed after their run had ended are told from those that were not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.load import load
from sage.config.load import load as load_config
from sage.launch.execute import execute

SMALL = [
    *("method=base", "evaluation.splits=[valid_seen]", "evaluation.limit=3", "env.turn_budget=4"),
    *("env.games=generated", "env.generated.train=6", "env.generated.valid_seen=4"),
    *("env.generated.valid_unseen=4", "speed.threads=1", "tracking.mlflow=false"),
]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("honest") / "runs"
    for seed in (0, 1):
        outcome = execute(load_config([*SMALL, f"seed={seed}", f"launch.runs_dir={runs}"]))
        assert outcome.state == "done"
    return runs


@pytest.fixture
def runs(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "runs"))


def first(runs: Path) -> Path:
    return min(runs.glob("*/attempt_1"))


def test_records_as_they_were_written_give_no_note(runs: Path) -> None:
    records = load([runs], tables=("episodes", "turns", "steps"))
    assert records.notes == ()
    assert records.touched == {}
    assert len(records.runs) == 2
    assert [entry["event"] for entry in records.ledger.entries] == ["start", "done"] * 2
    assert {"episodes.parquet", "turns.parquet", "steps.parquet", "config.yaml", "run.json", "source"} <= set(
        records.digests[records.runs["run"].iloc[0]]
    )


def test_a_win_that_was_flipped_in_a_table_is_said(runs: Path) -> None:
    file = first(runs) / "episodes.parquet"
    episodes = pd.read_parquet(file)
    episodes["won"] = True
    episodes["status"] = "won"
    episodes.to_parquet(file)
    records = load([runs])
    assert records.touched == {file.parts[-3]: ("episodes.parquet was changed after the run had ended",)}
    assert any("episodes.parquet was changed after the run had ended." in note for note in records.notes)


@pytest.mark.parametrize(("column", "value"), [("method", "opd"), ("seed", 7), ("run", "0" * 12)])
def test_a_table_that_says_it_is_of_another_run_is_not_in_the_numbers(
    runs: Path, column: str, value: object
) -> None:
    file = first(runs) / "episodes.parquet"
    pd.read_parquet(file).assign(**{column: value}).to_parquet(file)
    records = load([runs])
    assert int(records.runs["used"].sum()) == 1
    (row,) = records.unused.itertuples()
    assert f"episodes has {column} {value} where run.json has" in row.reason
    assert any("is not in the numbers" in note and "its tables are not of this run" in note
               for note in records.notes)  # fmt: skip


def test_a_split_that_the_run_was_not_to_play_is_no_part_of_it(runs: Path) -> None:
    file = first(runs) / "episodes.parquet"
    pd.read_parquet(file).assign(split="valid_unseen").to_parquet(file)
    (row,) = load([runs]).unused.itertuples()
    assert "episodes has evaluations of valid_unseen, which run.json does not name" in row.reason


def test_a_setting_changed_in_run_json_no_longer_gives_the_run_s_digest(runs: Path) -> None:
    file = first(runs) / "run.json"
    data = json.loads(file.read_text())
    data["fields"]["trainer"]["steps"] = 99
    file.write_text(json.dumps(data))
    (odd,) = load([runs]).touched.values()
    assert odd == (
        "the settings in run.json do not give the digest that stands there",
        "run.json was changed after the run had ended",
    )


def test_a_plan_s_hash_written_by_hand_and_a_missing_config_are_said(runs: Path) -> None:
    file = first(runs) / "provenance.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | {"plan_sha256": "a" * 64}))
    (first(runs) / "config.yaml").unlink()
    (odd,) = load([runs]).touched.values()
    assert set(odd) == {"provenance.json was changed after the run had ended", "config.yaml is gone"}


def test_code_that_changed_while_the_run_went_on_is_said(runs: Path) -> None:
    file = first(runs) / "status.json"
    data = json.loads(file.read_text())
    data["sha256"]["source"] = "a" * 64
    file.write_text(json.dumps(data))
    (odd,) = load([runs]).touched.values()
    assert odd == ("the code was changed between its start and its end",)


def test_a_run_that_was_finished_twice_says_which_attempt_counts(runs: Path) -> None:
    attempt = first(runs)
    shutil.copytree(attempt, attempt.with_name("attempt_2"))
    records = load([runs])
    assert records.others == {attempt.parent.name: {"attempt 1": "done"}}
    (note,) = records.notes
    assert "was finished more than once (attempts 1, 2); the last one is in the numbers" in note


def test_a_ledger_with_a_line_taken_out_is_said(runs: Path) -> None:
    file = runs / "ledger.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], *lines[2:]]))
    (note,) = load([runs]).notes
    assert note.startswith("Line 2 of ledger.jsonl does not follow the line before it")

"""Record tables: complete batches only, never twice, read the same at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage.records.reader import file_problem
from sage.records.schema import RENAMED_COLUMNS, TABLES
from sage.records.tables import Tables, arrow_schema, read, read_frame, to_arrow

from .conftest import record_evaluation, record_run, record_step


def all_tables(folder: Path) -> dict[str, list[dict]]:
    rows = {table: read(folder, table).to_pylist() for table in TABLES}
    for row in rows["steps"]:
        row.pop("time")
    return rows


def test_every_column_has_an_arrow_type_and_comes_back(folder: Path) -> None:
    record_run(folder)
    for table in TABLES:
        assert read(folder, table).schema.equals(arrow_schema(table))


def test_rows_hold_what_was_played(folder: Path) -> None:
    record_run(folder)
    turns = read_frame(folder, "turns")
    train = turns[turns.phase == "train"]
    assert list(train.label[:3]) == ["SKIP", "DET_FAIL", "WEAK"]
    assert list(train.oracle[:3]) == ["progress", "no_effect", "progress"]
    assert train.judge_reply[:3].isna().tolist() == [False, True, False]
    assert train.admissible.iloc[0] == "look\ngo to shelf 0"
    assert turns[turns.phase == "eval"].label.isna().all()
    episodes = read_frame(folder, "episodes")
    broken = episodes[~episodes.ok]
    assert broken.won.isna().all()
    assert broken.score.isna().all()
    assert len(broken) == 1
    assert (episodes.expert_distance_start == 5).all()


def test_consolidated_reads_the_same_and_leaves_no_parts(folder: Path) -> None:
    tables = record_run(folder)
    before = all_tables(folder)
    tables.consolidate()
    tables.consolidate()
    assert all_tables(folder) == before
    assert not (folder / "parts").exists()
    assert pq.read_schema(folder / "turns.parquet").metadata[b"sage_format"] == b"1"
    assert tables.evaluated(0, "valid_unseen") is False  # asked of a finished run only after resume()
    tables.resume(3)
    assert tables.evaluated(0, "valid_unseen")
    assert tables.evaluated(3, "valid_unseen")
    assert all_tables(folder) == before


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_resume_repeats_nothing_and_loses_nothing(folder: Path, step: int, consolidated: bool) -> None:
    tables = record_run(folder)
    record_evaluation(tables, 2, "valid_unseen", won=4, n=10)
    expected = all_tables(folder)
    if consolidated:
        tables.consolidate()
    again = Tables(folder)
    again.resume(step)
    assert max((row["step"] for row in read(folder, "steps").to_pylist()), default=0) == step
    assert again.evaluated(0, "valid_unseen")
    assert again.evaluated(2, "valid_unseen") is (step >= 2)
    for later in range(step + 1, 4):
        record_step(again, later)
    for at, won, not_ok in ((2, 4, 0), (3, 6, 1)):
        if not again.evaluated(at, "valid_unseen"):
            record_evaluation(again, at, "valid_unseen", won=won, n=10, not_ok=not_ok)
    assert all_tables(folder) == expected


def test_writing_a_batch_again_replaces_it(folder: Path) -> None:
    tables = record_run(folder)
    before = {table: read(folder, table).num_rows for table in TABLES}
    record_step(tables, 2)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10)
    assert {table: read(folder, table).num_rows for table in TABLES} == before


def test_an_unfinished_batch_is_invisible_and_cleaned(folder: Path) -> None:
    tables = record_run(folder)
    before = all_tables(folder)
    half = folder / "parts" / ".00000004-0-train"
    half.mkdir()
    (half / "turns.parquet").write_bytes(b"PAR1 half")
    assert all_tables(folder) == before
    tables.resume(3)
    assert not half.exists()


def test_killed_between_the_tables_and_the_removal_of_parts(folder: Path) -> None:
    """consolidate() died after writing one file: parts stay the truth, a second try completes it."""
    tables = record_run(folder)
    before = all_tables(folder)
    (folder / "turns.parquet").write_bytes(b"not parquet")
    assert all_tables(folder) == before
    tables.consolidate()
    assert all_tables(folder) == before


def test_kill_minus_nine_keeps_complete_batches(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.records.conftest import *\n"
        "tables = Tables(Path(sys.argv[1])); tables.resume(0)\n"
        "for step in range(1, 100000): record_step(tables, step)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=Path(__file__).parents[2])
    while not list(folder.glob("parts/00000003*")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    steps = [row["step"] for row in read(folder, "steps").to_pylist()]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 3
    assert read(folder, "episodes").num_rows == 4 * len(steps)
    assert read(folder, "turns").num_rows == 12 * len(steps)


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'turns' has no column 'lable'. Did you mean 'label'"):
        to_arrow("turns", [{"lable": "SKIP"}])


def test_a_wrong_type_names_its_column() -> None:
    with pytest.raises(ValueError, match=r"steps.loss must be double"):
        to_arrow("steps", [{"loss": "high"}])


def test_rows_of_another_step_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="Step 2 takes"):
        Tables(folder).append_step(2, turns=[], episodes=[], row={"step": 1})
    with pytest.raises(ValueError, match="of step 0 and split 'valid'"):
        Tables(folder).append_evaluation(0, "valid", turns=[], episodes=[{"step": 0, "split": "other"}])


def test_an_empty_run_reads_as_empty_tables(folder: Path) -> None:
    assert read(folder, "turns").num_rows == 0
    assert read(folder, "steps", ["step", "loss"]).column_names == ["step", "loss"]


def test_columns_that_are_called_otherwise_now_are_read_under_their_new_names(folder: Path) -> None:
    """A run of before is read, gone on with, and then written under the new names alone."""
    tables = record_run(folder)
    former = {new: old for old, new in RENAMED_COLUMNS.items()}
    for batch in (folder / "parts").glob("*-0-train"):
        steps = pq.read_table(batch / "steps.parquet")
        steps = steps.set_column(
            steps.schema.get_field_index("demonstration_tokens"), "demonstration_tokens", pa.array([7])
        )
        pq.write_table(
            steps.rename_columns([former.get(name, name) for name in steps.column_names]),
            batch / "steps.parquet",
        )
        assert file_problem(batch / "steps.parquet") == ""
    before = all_tables(folder)
    assert [row["demonstration_tokens"] for row in before["steps"]] == [7, 7, 7]
    assert not set(before["steps"][0]) & set(RENAMED_COLUMNS)
    some = read(folder, "steps", ["step", "demonstration_tokens"])
    assert some.to_pylist() == [{"step": n, "demonstration_tokens": 7} for n in (1, 2, 3)]
    record_step(tables, 4)
    assert read(folder, "steps", ["demonstration_tokens"]).column(0).to_pylist() == [7, 7, 7, None]
    tables.consolidate()
    assert not set(pq.read_schema(folder / "steps.parquet").names) & set(RENAMED_COLUMNS)
    tables.resume(3)
    rows = [row for row in before["episodes"] if row["phase"] == "train"]
    assert all_tables(folder)["steps"] == before["steps"]
    assert [row for row in all_tables(folder)["episodes"] if row["phase"] == "train"] == rows

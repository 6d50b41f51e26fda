"""One reader of run folders: whatever lies in one is read, or is one sentence, and stops nobody else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage.records.files import Unreadable, read_object
from sage.records.reader import attempt_dirs, open_attempt
from sage.records.rundir import RunDir


def test_a_whole_run_has_no_problem(finished: RunDir) -> None:
    attempt = open_attempt(finished.path)
    assert attempt.problems == {}
    assert attempt.is_usable
    assert attempt.identity == finished.identity()
    assert attempt.status == finished.status()
    assert attempt.number == 1


def edit(name: str, **changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(data | changes), encoding="utf-8")

    return change


def put(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def become_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def become_pipe(folder: Path) -> None:
    (folder / "status.json").unlink()
    os.mkfifo(folder / "status.json")


def become_loop(folder: Path) -> None:
    (folder / "status.json").unlink()
    (folder / "status.json").symlink_to("status.json")


def foreign_table(folder: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), folder / "episodes.parquet")


def newer_table(folder: Path) -> None:
    table = pq.read_table(folder / "episodes.parquet")
    metadata = {**table.schema.metadata, b"sage_format": b"99"}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "episodes.parquet")


DAMAGES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "status empty": (put("status.json", b""), "status.json is empty", True),
    "status cut": (cut("status.json"), "status.json is cut or no JSON", True),
    "status foreign": (put("status.json", b'{"a": 1}'), "state", True),
    "status newer": (edit("status.json", state="paused"), "paused", True),
    "status of other types": (edit("status.json", pid="me"), "pid", True),
    "status not a number": (put("status.json", b'{"state": "done", "heartbeat": NaN}'), "no JSON", True),
    "status nested": (put("status.json", b"[" * 100_000), "cut or no JSON", True),
    "status in another encoding": (put("status.json", '{"state": "é"}'.encode("utf-16")), "UTF-8", True),
    "status a folder": (lambda folder: become_folder(folder, "status.json"), "is no file", True),
    "status a pipe": (become_pipe, "is no file", True),
    "status a loop": (become_loop, "status.json cannot be read", True),
    "run cut": (cut("run.json"), "run.json is cut", False),
    "run foreign": (put("run.json", b"[]"), "holds no JSON object", False),
    "run newer": (edit("run.json", identity_version=99), "newer version", False),
    "run of other types": (edit("run.json", fields={"env": 3}), "env is of another type", False),
    "run missing": (lambda folder: (folder / "run.json").unlink(), "", False),
    "summary cut": (cut("summary.json"), "summary.json is cut", True),
    "summary foreign": (edit("summary.json", splits=[{"split": 3}]), "summary.json is not as", True),
    "provenance cut": (cut("provenance.json"), "provenance.json is cut", True),
    "provenance foreign": (edit("provenance.json", code="abc"), "provenance.json is not as", True),
    "table cut": (cut("episodes.parquet"), "episodes.parquet is cut", False),
    "table foreign": (foreign_table, "is no table of ours", False),
    "table newer": (newer_table, "record format 99", False),
    "table missing": (lambda folder: (folder / "turns.parquet").unlink(), "turns.parquet is missing", False),
    "table a folder": (lambda folder: become_folder(folder, "turns.parquet"), "is no file", False),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_one_sentence(finished: RunDir, what: str) -> None:
    change, told, usable = DAMAGES[what]
    change(finished.path)
    attempt = open_attempt(finished.path)
    assert attempt.is_usable is usable
    if told:
        assert len(attempt.notes) == 1
        assert told in attempt.notes[0]
        assert len(attempt.notes[0]) < 400
        assert "\n" not in attempt.notes[0]


def test_only_attempts_are_attempts_and_the_rest_is_named(finished: RunDir) -> None:
    home = finished.path.parent
    shutil.copytree(finished.path, home / "attempt_1.bak")
    shutil.copytree(finished.path, home / "attempt_10")
    (home / "attempt_2").write_text("a file", encoding="utf-8")
    (home / "attempt_03").mkdir()
    (home / "attempt_4").symlink_to("attempt_4")
    found, notes = attempt_dirs(home)
    assert [path.name for path in found] == ["attempt_1", "attempt_10"]
    named = [note.partition(" is no attempt")[0].rpartition("/")[2] for note in notes]
    assert named == ["attempt_03", "attempt_1.bak", "attempt_2", "attempt_4"]


def test_a_home_that_is_not_there_or_is_a_file_has_no_attempt(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert attempt_dirs(tmp_path / "none") == ([], [])
    assert attempt_dirs(tmp_path / "file") == ([], [])


def test_a_file_that_is_larger_than_any_of_ours_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(Unreadable, match=r"1,000,000,000,000 bytes"):
        read_object(tmp_path / "a.json")

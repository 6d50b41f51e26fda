"""The append-only ledger of starts, ends and freezes: many writers, a torn line, and what shows of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sage.config.load import load
from sage.launch.claim import claim
from sage.records.identity import Identity
from sage.records.run_ledger import NAME, append, read, records_digest
from sage.records.rundir import RunDir
from sage.records.seal import SOURCE, digests, file_digest


def three(folder: Path) -> Path:
    for number in range(3):
        append(folder, "start", f"{number}" * 64, run=f"{number}" * 12, attempt=1)
    return folder / NAME


def test_each_line_carries_the_digest_of_the_line_before(tmp_path: Path) -> None:
    three(tmp_path)
    ledger = read(tmp_path)
    assert [entry["run"][0] for entry in ledger.entries] == ["0", "1", "2"]
    assert ledger.problems == ()
    assert ledger.entries[0]["before"] == ""
    assert ledger.of("freeze") == []
    assert read(tmp_path / "nowhere").entries == ()


def test_a_line_that_was_changed_removed_or_put_in_shows(tmp_path: Path) -> None:
    file = three(tmp_path)
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    file.write_text(whole.replace('"attempt":1', '"attempt":2', 1))
    assert [p.partition(" of ")[0] for p in read(tmp_path).problems] == ["Line 2"]
    file.write_text(lines[0] + lines[2])
    assert "does not follow the line before it" in read(tmp_path).problems[0]
    file.write_text(lines[0] + lines[0] + lines[1] + lines[2])
    assert [p.partition(" of ")[0] for p in read(tmp_path).problems] == ["Line 2"]
    early = json.loads(lines[2]) | {"time": "2020-01-01T00:00:00.000+00:00"}
    file.write_text(lines[0] + lines[1] + json.dumps(early) + "\n")
    assert "the clock was set back" in read(tmp_path).problems[0]


def test_a_line_that_was_cut_off_is_said_and_the_next_one_follows_it(tmp_path: Path) -> None:
    file = three(tmp_path)
    file.write_bytes(file.read_bytes()[:-9])
    append(tmp_path, "start", "3" * 64)
    ledger = read(tmp_path)
    assert [entry["digest"][0] for entry in ledger.entries] == ["0", "1", "3"]
    assert ledger.problems == (
        f"Line 3 of {NAME} is no whole entry: it was cut off by a process that ended while it wrote, "
        "or changed.",
    )


def test_many_processes_at_once_make_one_chain(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sage.records.run_ledger import append\n"
        "for n in range(25): append(Path(sys.argv[1]), 'start', sys.argv[2] * 64, attempt=n)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "abcd"]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    ledger = read(tmp_path)
    assert ledger.problems == ()
    for name in "abcd":
        mine = [entry["attempt"] for entry in ledger.entries if entry["digest"][0] == name]
        assert mine == list(range(25))


def test_starts_and_ends_of_runs_are_in_it(tmp_path: Path) -> None:
    config = load([f"launch.runs_dir={tmp_path}"])
    identity = Identity.of(config, "m")
    folder = claim(config, identity).folder
    assert folder is not None
    folder.fail("stopped")
    again = claim(config, identity).folder
    assert again is not None
    again.done()
    assert claim(config, identity).action == "skip"
    rerun = load([f"launch.runs_dir={tmp_path}", "launch.on_existing=rerun"])
    claim(rerun, identity)
    ledger = read(tmp_path)
    assert ledger.problems == ()
    assert [(e["event"], e["attempt"]) for e in ledger.entries] == [
        ("start", 1), ("resume", 1), ("done", 1), ("start", 2),
    ]  # fmt: skip
    assert {(e["digest"], e["run"]) for e in ledger.entries} == {(identity.digest, identity.run)}
    status = again.status()
    assert status is not None
    assert ledger.entries[2]["records"] == records_digest(status.sha256)


def test_a_run_that_is_done_says_the_digests_of_its_records_and_of_its_code(run: RunDir) -> None:
    before = digests(run.path)
    assert {"config.yaml", "run.json", SOURCE} <= set(before)
    run.done()
    status = run.status()
    assert status is not None
    assert status.sha256 == before
    assert before["run.json"] == file_digest(run.path / "run.json")
    (run.path / "config.yaml").write_text("seed: 1\n")
    assert digests(run.path) == before | {"config.yaml": file_digest(run.path / "config.yaml")}
    assert digests(run.path, ["tests.outside.plugin"])[SOURCE] != before[SOURCE]


@pytest.mark.parametrize(
    "change",
    [
        {"time": 5},
        {"time": "soon"},
        {"time": "2026-01-02T03:04:05"},
        {"digest": None},
        {"run": ["a"]},
        {"attempt": "1"},
    ],
)
def test_a_line_with_values_of_other_kinds_is_no_entry(tmp_path, change):
    append(tmp_path, "start", "a" * 64, run="a" * 12, attempt=1)
    line = json.loads((tmp_path / NAME).read_text()) | change
    (tmp_path / NAME).write_text(json.dumps(line) + "\n")
    ledger = read(tmp_path)
    assert ledger.entries == ()
    assert ledger.problems[0].startswith(f"Line 1 of {NAME} is no whole entry")


def test_a_ledger_that_cannot_be_opened_is_a_problem_and_stops_nothing(tmp_path):
    (tmp_path / NAME).mkdir()
    (problem,) = read(tmp_path).problems
    assert "cannot be read" in problem

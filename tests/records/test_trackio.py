"""Trackio's store on this machine, read back by Trackio's own reader; no network is reached."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.config.load import load
from sage.records.identity import Identity
from sage.records.loggers.export import StepwiseExport
from sage.records.loggers.note import is_sent
from sage.records.loggers.open import LoggerExporter, look_lines
from sage.records.rundir import RunDir, new_attempt
from sage.records.tables import Tables
from tests.records.conftest import record_evaluation, record_run, record_step

trackio = pytest.importorskip("trackio", reason="pip install 'sage-opd[trackio]' (nox -s loggers)")

LOSS = "distill/loss"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trackio's folder, of this process and of its children."""
    from trackio import sqlite_storage

    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKIO_DIR", str(folder))
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", folder)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A fresh attempt whose config asks for Trackio."""
    config = load(["tracking=trackio"])
    return new_attempt(tmp_path / "runs", Identity.of(config, "f" * 64), config)


def name_of(run: RunDir) -> str:
    return f"sage_opd-alfworld-s0-{run.identity().run[:6]}"


def logs(run: RunDir) -> list[dict[str, Any]]:
    """The run's rows, as Trackio's page asks for them."""
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage.get_logs("sage", name_of(run))


def curve(run: RunDir, key: str) -> list[tuple[int, float]]:
    return [(row["step"], round(row[key], 4)) for row in logs(run) if key in row]


def test_trackio_has_curves_settings_turns_and_the_end(finished: RunDir, store: Path) -> None:
    StepwiseExport(finished.path, "trackio").sync(final=True)
    api = trackio.Api()
    (shown,) = api.runs("sage")
    assert (shown.name, shown.id) == (name_of(finished), f"{finished.identity().digest}/attempt_1")
    assert curve(finished, LOSS) == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    assert curve(finished, "eval/valid_unseen/success_rate") == [(0, 0.2), (3, 0.6)]
    assert curve(finished, "whole_run/gain/valid_unseen") == [(3, 40.0)]
    times = [row["timestamp"] for row in logs(finished)]
    assert times == sorted(times)
    assert shown.config["arm.intervention"] == "judge"
    assert (shown.config["seed"], shown.config["state"]) == (0, "done")
    table = logs(finished)[-1]["turns"]
    assert table["_type"] == trackio.Table.TYPE
    assert (table["_value"][1]["label"], table["_value"][1]["action"]) == ("DET_FAIL", "go to shelf 1")
    assert is_sent(finished.path, "trackio")


def test_sending_again_doubles_nothing(finished: RunDir, store: Path) -> None:
    for _ in range(2):
        StepwiseExport(finished.path, "trackio").sync(final=True)
    assert [step for step, _ in curve(finished, LOSS)] == [1, 2, 3]
    assert len([row for row in logs(finished) if "turns" in row]) == 1


def test_a_run_that_goes_back_to_a_checkpoint_leaves_one_history(run: RunDir, store: Path) -> None:
    run.start(steps=3)
    tables = Tables(run.path)
    tables.resume(0)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10)
    for step in (1, 2):
        record_step(tables, step)
    first = StepwiseExport(run.path, "trackio")
    first.sync(final=False)
    assert curve(run, "distill/success_rate") == [(1, 0.25), (2, 0.25)]
    tables.resume(1)
    for step in (2, 3):
        record_step(tables, step, won=2)
    StepwiseExport(run.path, "trackio").sync(final=True)
    assert curve(run, "distill/success_rate") == [(1, 0.25), (2, 0.5), (3, 0.5)]
    assert not is_sent(run.path, "trackio")
    # The first one's rows are gone from under it: it begins again and writes none beside.
    record_step(tables, 4)
    first.sync(final=False)
    assert [step for step, _ in curve(run, LOSS)] == [1, 2, 3, 4]


def test_a_child_process_fills_the_store_side_by_side_with_other_runs(tmp_path: Path, store: Path) -> None:
    exporter = LoggerExporter("trackio", tmp_path / "export.log", poll_s=0.2)
    attempts = []
    for seed in (0, 1):
        config = load(["tracking=trackio", f"seed={seed}"])
        attempts.append(new_attempt(tmp_path / "runs", Identity.of(config, "f" * 64), config))
    for attempt in attempts:
        attempt.start(steps=1)
        exporter.follow(attempt.path)
        record_run(attempt.path, steps=1)
        attempt.done(step=1)
    assert [result.error for result in exporter.finish()] == ["", ""]
    assert sorted(run.config["seed"] for run in trackio.Api().runs("sage")) == [0, 1]


def spoil_folder(store: Path) -> None:
    store.write_text("in the way")


def spoil_file(store: Path) -> None:
    store.mkdir()
    (store / "sage.db").write_bytes(b"no database" * 1000)


@pytest.mark.parametrize("spoil", [spoil_folder, spoil_file])
def test_a_store_that_cannot_be_written_costs_one_sentence(
    spoil: Callable[[Path], None], finished: RunDir, tmp_path: Path, store: Path
) -> None:
    spoil(store)
    exporter = LoggerExporter("trackio", tmp_path / "export.log", poll_s=0.2)
    exporter.follow(finished.path)
    (result,) = exporter.finish()
    assert result.error.startswith("Not in trackio: it answered ")
    assert f"export {finished.path} --logger trackio`" in result.error
    assert not is_sent(finished.path, "trackio")


def test_no_network_is_reached(finished: RunDir, store: Path) -> None:
    """The real command, where every connection is an error; trackio itself would ask who the user is."""
    script = (
        "import socket, sys\n"
        "def refuse(*_): sys.stderr.write('CONNECTED'); raise OSError('no network')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
        "from sage.records.loggers.export import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(finished.path), "--logger", "trackio"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(curve(finished, LOSS)) == 3


def test_trackio_beside_others_is_shown_by_its_own_line() -> None:
    both = load(["tracking=[tensorboard,trackio]", "tracking.loggers.trackio.project='my runs'"]).tracking
    assert look_lines(both)[1] == "trackio: trackio show --project 'my runs'"

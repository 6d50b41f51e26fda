"""Weights & Biases' offline runs, read back from the file that `wandb sync` sends; no network is reached."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage.config.load import load
from sage.records.identity import Identity
from sage.records.loggers.export import StepwiseExport, explain, main
from sage.records.loggers.note import is_sent
from sage.records.loggers.open import LoggerExporter, look_lines
from sage.records.loggers.wandb_file import records
from sage.records.rundir import RunDir, new_attempt
from sage.records.tables import Tables
from tests.records.conftest import record_evaluation, record_run, record_step, wait_for

wandb = pytest.importorskip("wandb", reason="pip install 'sage-opd[wandb]' (nox -s loggers)")

LOSS = "distill/loss"
KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """wandb as in a shell that knows nothing else of it."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A fresh attempt whose config asks for Weights & Biases."""
    config = load(["tracking=wandb"])
    return new_attempt(tmp_path / "runs", Identity.of(config, "f" * 64), config)


@pytest.fixture
def wall() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing: nobody's, where nobody connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        yield server


def folder(tmp_path: Path) -> Path:
    """The one run's."""
    (found,) = tmp_path.glob("wandb/offline-run-*")
    return found


def records_of(tmp_path: Path, kind: str) -> list[Any]:
    (file,) = folder(tmp_path).glob("*.wandb")
    return [content for of_kind, content in records(file) if of_kind == kind]


def history(tmp_path: Path) -> list[dict[str, Any]]:
    """Rows in the order in which they were sent; a table is a mapping of its own."""
    found = []
    for row in records_of(tmp_path, "history"):
        values: dict[str, Any] = {}
        for item in row.item:
            *homes, name = item.nested_key or [item.key]
            home = values
            for part in homes:
                home = home.setdefault(part, {})
            home[name] = json.loads(item.value_json)
        found.append(values)
    return found


def curve(tmp_path: Path, key: str) -> list[tuple[int, float]]:
    return [(row["step"], round(row[key], 4)) for row in history(tmp_path) if key in row]


def config_of(tmp_path: Path) -> dict[str, Any]:
    (run,) = records_of(tmp_path, "run")
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def by_hand(run_dir: Path, **options: Any) -> int:
    """The exit code. In a process and a service of its own: one service of wandb's begins a run but once."""
    given = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    line = [sys.executable, "-m", "sage.records.loggers.export", str(run_dir), "--logger", "wandb"]
    env = {**given, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(line, env=env, check=False, **options).returncode


def test_wandb_has_curves_settings_turns_and_the_end(finished: RunDir, tmp_path: Path) -> None:
    StepwiseExport(finished.path, "wandb").sync(final=True)
    assert curve(tmp_path, LOSS) == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    assert curve(tmp_path, "eval/valid_unseen/success_rate") == [(0, 0.2), (3, 0.6)]
    assert curve(tmp_path, "whole_run/gain/valid_unseen") == [(3, 40.0)]
    first = next(row for row in history(tmp_path) if LOSS in row)
    assert first["_timestamp"] == pytest.approx(time.time(), abs=3600)
    (made,) = records_of(tmp_path, "run")
    assert made.project == "sage"
    assert made.display_name == f"sage_opd-alfworld-s0-{finished.identity().run[:6]}"
    config = config_of(tmp_path)
    assert (config["arm.intervention"], config["seed"]) == ("judge", 0)
    assert config["sage.key"] == f"{finished.identity().digest}/attempt_1"
    assert "sage.state" not in config
    axis, every = records_of(tmp_path, "metric")
    assert (axis.name, every.glob_name, every.step_metric) == ("step", "*", "step")
    (ended,) = records_of(tmp_path, "exit")
    assert ended.exit_code == 0
    (table,) = folder(tmp_path).glob("files/media/table/*.json")
    shown = json.loads(table.read_text())
    turn = dict(zip(shown["columns"], shown["data"][1], strict=True))
    assert (turn["label"], turn["action"]) == ("DET_FAIL", "go to shelf 1")
    assert history(tmp_path)[-1]["turns"]["path"] == f"media/table/{table.name}"
    assert is_sent(finished.path, "wandb")


def test_what_this_process_is_does_not_go_to_wandb(finished: RunDir, tmp_path: Path) -> None:
    StepwiseExport(finished.path, "wandb").sync(final=True)
    assert records_of(tmp_path, "stats") == records_of(tmp_path, "output_raw") == []
    assert [path.name for path in folder(tmp_path).glob("files/*")] == ["media"]


def test_sending_again_doubles_nothing(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RESUME", "must")  # the shell's, for a run of its own
    for _ in range(2):
        StepwiseExport(finished.path, "wandb").sync(final=True)
    assert [step for step, _ in curve(tmp_path, LOSS)] == [1, 2, 3]
    (made,) = records_of(tmp_path, "run")
    assert not made.resumed


def test_a_run_that_goes_back_to_a_checkpoint_leaves_one_history(run: RunDir, tmp_path: Path) -> None:
    run.start(steps=3)
    tables = Tables(run.path)
    tables.resume(0)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10)
    for step in (1, 2):
        record_step(tables, step)
    first = StepwiseExport(run.path, "wandb")
    first.sync(final=False)
    tables.resume(1)
    for step in (2, 3):
        record_step(tables, step, won=2)
    assert by_hand(run.path) == 0
    assert curve(tmp_path, "distill/success_rate") == [(1, 0.25), (2, 0.5), (3, 0.5)]
    (ended,) = records_of(tmp_path, "exit")
    assert ended.exit_code == 1  # its process has gone, and it is not done
    assert not is_sent(run.path, "wandb")
    # The first process's folder is gone from under it: it begins again and leaves no second one beside.
    record_step(tables, 4)
    first.sync(final=True)
    assert [step for step, _ in curve(tmp_path, LOSS)] == [1, 2, 3, 4]


def test_a_child_follows_runs_side_by_side_and_reaches_no_network(
    tmp_path: Path, wall: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{wall.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    exporter = LoggerExporter("wandb", tmp_path / "export.log", poll_s=0.2)
    attempts = []
    for seed in (0, 1):
        config = load(["tracking=wandb", f"seed={seed}"])
        attempts.append(new_attempt(tmp_path / "runs", Identity.of(config, "f" * 64), config))
    for attempt in attempts:
        attempt.start(steps=2)
        exporter.follow(attempt.path)
        record_run(attempt.path, steps=1)
    wait_for(lambda: len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2, 120)
    for attempt in attempts:
        attempt.done(step=1)
    assert [result.error for result in exporter.finish()] == ["", ""]
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    named = [next(content for kind, content in records(file) if kind == "run") for file in files]
    assert sorted(run.display_name.split("-")[2] for run in named) == ["s0", "s1"]
    with pytest.raises(TimeoutError):
        wall.accept()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_without_a_key_wandb_is_a_sentence(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    exporter = LoggerExporter("wandb", tmp_path / "export.log", poll_s=0.2)
    exporter.follow(finished.path)
    (result,) = exporter.finish()
    assert result.error.startswith("Not in wandb: it answered UsageError: ")
    assert "API key" in result.error
    assert "export them later with `python -m sage.records.loggers.export " in result.error
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main([str(finished.path), "--logger", "wandb"]) == 0
    assert len(curve(tmp_path, LOSS)) == 3


def test_a_server_that_does_not_answer_is_waited_for_so_long(
    finished: RunDir, wall: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sage.records.loggers import wandb as ours

    monkeypatch.setitem(ours._OPTIONS, "init_timeout", 2.0)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{wall.getsockname()[1]}")
    started = time.monotonic()
    with pytest.raises(Exception, match="imed out") as raised:
        StepwiseExport(finished.path, "wandb").sync(final=True)
    assert time.monotonic() - started < 60
    assert explain(raised.value, "wandb").startswith("it answered CommError: ")
    assert not is_sent(finished.path, "wandb")


def test_a_disk_that_is_full_is_a_sentence(
    finished: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No process may write a file above 8 KiB: wandb itself says so in its log alone."""
    resource = pytest.importorskip("resource")

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    assert by_hand(finished.path, preexec_fn=small_disk) == 1
    said = capfd.readouterr().err
    assert re.search(r"its file has \d of 6 rows and no end \(is the disk full\?\)", said)
    assert "Traceback" not in said
    assert not is_sent(finished.path, "wandb")
    assert by_hand(finished.path) == 0
    assert len(curve(tmp_path, LOSS)) == 3


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_what_keeps_nothing_is_said(
    mode: str, finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    if mode == "offline":
        (tmp_path / "wandb").write_text("in the way")
    with pytest.raises((RuntimeError, OSError), match=r"keeps nothing|File exists"):
        StepwiseExport(finished.path, "wandb").sync(final=True)
    assert not is_sent(finished.path, "wandb")


def test_the_project_is_the_shells_unless_the_line_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    both = load(["tracking=[mlflow,wandb]"]).tracking
    assert (both.mlflow, list(both.loggers)) == (True, ["wandb"])
    assert look_lines(both) == ["wandb: wandb sync"]
    monkeypatch.setenv("WANDB_MODE", "online")
    assert look_lines(both) == []
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    named = load(["tracking=wandb", "tracking.loggers.wandb.project=theirs"]).tracking
    opened = [tracking.loggers["wandb"].open()._project for tracking in (both, named)]
    assert opened == ["ours", "theirs"]

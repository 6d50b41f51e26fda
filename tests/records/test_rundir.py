"""Run identities, attempts and their states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import yaml

from sage.config.load import load
from sage.config.schema import RunConfig
from sage.records.identity import Identity
from sage.records.reader import attempt_dirs
from sage.records.rundir import RunDir, new_attempt


def test_digest_survives_a_round_trip_through_the_file(run: RunDir, config: RunConfig) -> None:
    assert run.identity().digest == Identity.of(config, "f" * 64).digest
    assert json.loads((run.path / "run.json").read_text())["digest"].startswith(run.path.parent.name)


def test_attempts_are_numbered_and_found(tmp_path: Path, config: RunConfig) -> None:
    identity = Identity.of(config, "m")
    assert attempt_dirs(tmp_path / identity.run) == ([], [])
    made = [new_attempt(tmp_path, identity, config) for _ in range(11)]
    found, _ = attempt_dirs(tmp_path / identity.run)
    assert [RunDir(path).attempt for path in found] == list(range(1, 12))
    assert made[0].path.parent.name == identity.run
    assert made[0].status() is None


def test_attempts_made_at_once_are_different(tmp_path: Path, config: RunConfig) -> None:
    identity, made = Identity.of(config, "m"), []
    threads = [
        threading.Thread(target=lambda: made.append(new_attempt(tmp_path, identity, config).attempt))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 9))


def test_states(run: RunDir) -> None:
    started = run.start(steps=5)
    assert started.state == "running"
    assert run.is_at_work()
    assert started.pid == os.getpid()
    run.beat(step=2, phase="rollout", success=0.25, seconds={"rollout": 3.0})
    status = run.status()
    assert status is not None
    assert (status.step, status.success, status.steps) == (2, 0.25, 5)
    run.fail("The student cannot be loaded.")
    status = run.status()
    assert status is not None
    assert status.state == "failed"
    assert not run.is_at_work()
    assert status.reason == "The student cannot be loaded."
    assert status.ended is not None
    again = run.start(steps=5)
    assert again.started == started.started
    assert again.seconds == {"rollout": 3.0}
    assert again.reason == ""
    run.done(step=5)
    run.beat(step=1)
    status = run.status()
    assert status is not None
    assert (status.state, status.step) == ("done", 5)


def test_a_dead_process_is_not_alive(run: RunDir) -> None:
    code = f"""
from pathlib import Path
from sage.records.rundir import RunDir
RunDir(Path({str(run.path)!r})).start()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    status = run.status()
    assert status is not None
    assert status.state == "running"
    assert not run.is_at_work()


def test_the_heartbeat_goes_on_and_readers_see_whole_files(run: RunDir) -> None:
    run.start()
    seen = set()
    with run.heartbeat(every_s=0.002):
        for step in range(200):
            run.beat(step=step)
            status = run.status()
            assert status is not None
            assert status.step == step
            seen.add(status.heartbeat)
    assert len(seen) > 100
    assert [path.name for path in run.path.glob(".status*")] == []


def test_passwords_stay_out_of_the_config_file(tmp_path: Path) -> None:
    config = load(["tracking.uri=postgresql://me:hunter2@host/db"])
    run = new_attempt(tmp_path, Identity.of(config, "m"), config)
    text = (run.path / "config.yaml").read_text()
    assert "hunter2" not in text
    assert "postgresql://***@host/db" in text
    assert yaml.safe_load(text)["method"] == "sage_opd"


def test_log_lines_are_appended(run: RunDir) -> None:
    run.log("one")
    run.log("two")
    assert [line.split(" ", 2)[2] for line in (run.path / "log.txt").read_text().splitlines()] == [
        "one",
        "two",
    ]

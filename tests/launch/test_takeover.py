"""A process that is suspended while others start the same run: one history, whoever goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launch.test_multirun import sage, start, states

HANG = "+env.trouble={0: hang}"


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A single run of ten minutes, in the middle of it."""
    process = start(folder, *words)
    wait_for(lambda: any(s["phase"] == "nap" for s in states(folder).values()))
    return process


@pytest.fixture
def first(tmp_path: Path) -> subprocess.Popen[str]:
    return started(tmp_path, HANG)


def test_a_suspended_process_keeps_its_run(first: subprocess.Popen[str], tmp_path: Path) -> None:
    first.send_signal(signal.SIGSTOP)
    code, out, err = sage(tmp_path, HANG)
    assert (code, err) == (0, "")
    assert "running elsewhere (" in out
    assert f"suspended: `kill -CONT {first.pid}` lets it go on" in out
    before = (next(tmp_path.glob("runs/*/attempt_1/status.json"))).read_bytes()
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: (next(tmp_path.glob("runs/*/attempt_1/status.json"))).read_bytes() != before, 60)
    first.terminate()
    first.communicate(timeout=60)
    assert first.returncode == 143
    assert [s["reason"] for s in states(tmp_path).values()] == ["stopped by SIGTERM"]


def test_a_process_that_lost_its_run_stops_with_a_code_of_its_own(
    first: subprocess.Popen[str], tmp_path: Path
) -> None:
    """The second one is on another machine, where nobody can tell a suspended process from a dead one."""
    first.send_signal(signal.SIGSTOP)
    second = start(tmp_path, HANG, program=("-c", "import tests.launch.elsewhere as far; far.main()"))
    wait_for(lambda: any(s["pid"] == second.pid and s["phase"] == "nap" for s in states(tmp_path).values()))
    log = next(tmp_path.glob("runs/*/attempt_1/log.txt"))
    before = log.read_bytes()
    first.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 3
    assert err.count("\n") == 1
    assert f"belongs to another process now (pid {second.pid}" in err
    assert log.read_bytes() == before
    assert second.poll() is None
    second.terminate()
    _, err = second.communicate(timeout=60)
    assert "watching its heartbeat" in err
    assert [(s["pid"], s["state"]) for s in states(tmp_path).values()] == [(second.pid, "failed")]
    assert len(list(tmp_path.glob("runs/*/attempt_*"))) == 1

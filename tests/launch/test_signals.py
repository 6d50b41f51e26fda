"""A signal at any moment, once or twice: the exit code says so, and the run is marked or half done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.test_multirun import start, states
from tests.launch.test_takeover import HANG, started


def stopped(folder: Path) -> list[tuple[object, object]]:
    return [(s["state"], s["reason"]) for s in states(folder).values()]


def test_a_closed_terminal_stops_a_run_as_sigterm_does(tmp_path: Path) -> None:
    process = started(tmp_path, HANG)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (129, "stopped by SIGHUP\n")
    assert stopped(tmp_path) == [("failed", "stopped by SIGHUP")]


@pytest.mark.parametrize(
    ("first", "then"), [(signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP, signal.SIGTERM)]
)
def test_a_logout_does_not_kill_over_the_checkpoint(
    tmp_path: Path, first: signal.Signals, then: signal.Signals
) -> None:
    process = started(tmp_path, HANG)
    process.send_signal(first)
    # In the same instant another thread may take both, and Python notices when its main thread next runs.
    time.sleep(0.02)
    process.send_signal(then)
    _, err = process.communicate(timeout=60)
    # The run is over by then; the second may still find the process on its way out.
    assert process.returncode in (128 + first, 128 + then, -then)
    assert "Traceback" not in err
    assert stopped(tmp_path) == [("failed", f"stopped by {first.name}")]


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGHUP]])
def test_signals_that_come_to_a_suspended_process_stop_it_as_soon_as_it_goes_on(
    tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    """Any of its threads may take them then, in the same instant; the main one sleeps for ten minutes."""
    process = started(tmp_path, HANG)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    for number in numbers:
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in {128 + number for number in numbers}
    told = f"stopped by {signal.Signals(process.returncode - 128).name}"
    assert err == f"{told}\n"
    assert stopped(tmp_path) == [("failed", told)]


def test_under_nohup_a_closed_terminal_stops_nothing(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit that
    try:
        process = started(tmp_path, HANG)
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    time.sleep(1.0)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.slow
@pytest.mark.parametrize("line", [(), ("-m", "seed=0,1")], ids=["one run", "a multirun"])
def test_a_signal_at_any_moment_of_the_start_has_its_code_and_no_traceback(
    tmp_path: Path, line: tuple[str, ...]
) -> None:
    rng = random.Random(7)
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        number = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        twice = rng.random() < 0.5
        process = start(folder, *line, "+env.trouble={0: hang, 1: hang}")
        wait_until_ours(process)
        time.sleep(rng.uniform(0.0, 5.0))
        process.send_signal(number)
        if twice:
            time.sleep(rng.uniform(0.0, 0.3))
            process.send_signal(number)
        _, err = process.communicate(timeout=200)
        killed = -number if twice and number != signal.SIGHUP else 128 + number
        assert process.returncode in (128 + number, killed), (number, twice, err)
        assert "Traceback" not in err
        for state, reason in stopped(folder):
            assert state in ("failed", "running")  # running, and its process gone: half done
            told = ("", f"stopped by {signal.Signals(number).name}")
            assert reason in told or "killed by signal" in str(reason)


def wait_until_ours(process: subprocess.Popen[str]) -> None:
    """Until the interpreter has given the word to our first line; before, Python's own rules hold."""
    mask = 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        caught = next(line for line in text.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & mask:
            return
        time.sleep(0.01)
    os.stat(process.args[0])  # type: ignore[index]

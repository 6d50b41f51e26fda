"""One owner of an attempt: who works on it, and what becomes of a writer that has lost it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sage.locks import LockTimeout, locked
from sage.records import owner, provenance
from sage.records.owner import LEASE_S, Owner, TakenOver, at_work, owner_of, seen_beating
from sage.records.process import Process
from sage.records.rundir import RunDir
from sage.records.tables import Tables
from tests.records.conftest import record_evaluation, record_run, record_step


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    """A process that sleeps, and how another one would describe it."""
    code = (
        "import json, time\nfrom dataclasses import asdict\nfrom sage.records.process import Process\n"
        "print(json.dumps(asdict(Process.here())), flush=True)\ntime.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert child.stdout is not None
    yield child, Process(**json.loads(child.stdout.readline()))
    child.send_signal(signal.SIGCONT)
    child.kill()
    child.wait()
    child.stdout.close()


def wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_process_is_alive_suspended_and_gone(sleeper: tuple[subprocess.Popen[bytes], Process]) -> None:
    child, process = sleeper
    assert process.state() == "alive"
    child.send_signal(signal.SIGSTOP)
    assert wait_for(lambda: process.state() == "suspended")
    child.send_signal(signal.SIGCONT)
    assert wait_for(lambda: process.state() == "alive")
    child.kill()
    assert wait_for(lambda: process.state() == "gone"), "a dead process that nobody has reaped is gone"
    child.wait()
    assert process.state() == "gone"


def test_a_number_that_was_given_again_is_another_process() -> None:
    here = Process.here()
    assert here.state() == "alive"
    assert replace(here, start="1").state() == "gone"


@pytest.mark.parametrize("other", [{"boot": "another boot"}, {"namespace": "pid:[1]"}])
def test_a_process_of_another_boot_or_container_is_elsewhere(other: dict[str, str]) -> None:
    if not Process.here().boot:
        pytest.skip("this system has no boot id")
    assert replace(Process.here(), **other).state() == "elsewhere"


def test_a_heartbeat_elsewhere_is_judged_by_the_readers_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own clock may be hours behind or ahead, and may jump: only that it changes counts."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    far = Process("another host", 1, "1", "another boot")
    assert at_work(tmp_path, far, beat=5e9)
    assert not seen_beating(tmp_path)
    clock[0] += LEASE_S - 1
    assert at_work(tmp_path, far, beat=5e9)
    assert at_work(tmp_path, far, beat=3.0), "a clock that jumped back still beats"
    assert seen_beating(tmp_path)
    clock[0] += LEASE_S + 1
    assert not at_work(tmp_path, far, beat=3.0)


def test_a_live_process_here_keeps_its_run_however_old_its_heartbeat(run: RunDir) -> None:
    run.start()
    status = run.status()
    assert status is not None
    for jump in (-1e7, 1e7):
        assert run.is_at_work(replace(status, heartbeat=status.heartbeat + jump))


def test_a_run_of_an_earlier_version_has_no_owner_and_is_judged_by_its_heartbeat(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.start()
    (run.path / "owner.json").unlink()
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert run.is_at_work()
    clock[0] += LEASE_S + 1
    assert not run.is_at_work(), "its number may be any process's by now"


def taken_over(run: RunDir) -> None:
    """What another process's claim leaves behind."""
    run.write_json("owner.json", asdict(Owner("another token", replace(Process.here(), pid=1, host="far"))))


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


WRITES: dict[str, Callable[[RunDir], Any]] = {
    "heartbeat": lambda run: run.beat(step=9),
    "log": lambda run: run.log("a word"),
    "summary": lambda run: run.write_json("summary.json", {}),
    "done": lambda run: run.done(),
    "failed": lambda run: run.fail("why"),
    "step": lambda run: record_step(Tables(run.path), 4),
    "evaluation": lambda run: record_evaluation(Tables(run.path), 4, "valid_seen", won=1, n=2),
    "resume": lambda run: Tables(run.path).resume(1),
    "consolidate": lambda run: Tables(run.path).consolidate(),
    "provenance": lambda run: provenance.write(run.path, manifest_digest="", models={}),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_writer_that_has_lost_its_run_writes_nothing_more(run: RunDir, what: str) -> None:
    run.start()
    record_run(run.path)
    taken_over(run)
    before = content(run.path)
    with pytest.raises(TakenOver, match=r"belongs to another process now \(pid 1 on far\)") as raised:
        WRITES[what](run)
    assert len(str(raised.value)) < 400
    assert content(run.path) == before


def test_a_checkpoint_is_not_written_into_a_run_that_was_lost(run: RunDir) -> None:
    from sage.training import checkpoint
    from tests.tiny_models import tiny_lm

    run.start()
    taken_over(run)
    with pytest.raises(TakenOver):
        checkpoint.save(run.checkpoints, 1, tiny_lm(0), {})
    assert not run.checkpoints.exists()


@pytest.mark.parametrize("what", WRITES)
def test_a_folder_moved_away_is_not_made_again(run: RunDir, tmp_path: Path, what: str) -> None:
    run.start()
    record_run(run.path)
    run.path.rename(tmp_path / "moved")
    with pytest.raises(TakenOver, match="has gone: moved or removed"):
        WRITES[what](run)
    assert not run.path.exists()


def test_who_takes_a_run_again_may_write(run: RunDir) -> None:
    run.start()
    first = owner_of(run.path)
    run.start()
    second = owner_of(run.path)
    assert first is not None
    assert second is not None
    assert first.token != second.token
    run.log("still here")


def test_a_parent_marks_what_its_dead_child_left_and_nothing_else(
    run: RunDir, sleeper: tuple[subprocess.Popen[bytes], Process]
) -> None:
    child, process = sleeper
    run.start()
    run.write_json("owner.json", asdict(Owner("the child's", process)))
    owner._held.clear()  # a parent holds nothing
    run.fail_orphan(child.pid, "died")
    assert run.is_at_work(), "it is alive"
    child.kill()
    child.wait()
    run.fail_orphan(child.pid + 1, "died")
    status = run.status()
    assert status is not None
    assert status.state == "running", "another process has it"
    run.fail_orphan(child.pid, "died")
    status = run.status()
    assert status is not None
    assert (status.state, status.reason) == ("failed", "died")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_has_one_holder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "a.lock"
    with locked(path), pytest.raises(LockTimeout, match=r"Another process holds the lock"), locked(path, 0.2):
        pass
    with locked(path, 0.2):
        pass

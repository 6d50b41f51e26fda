"""Trivial children: all are accounted for, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sage.launch.schedule import Ended, Job, cores, run_jobs

DO = """
import json, os, signal, subprocess, sys, time
request = json.loads(sys.stdin.readline())
what = request["do"]
if what == "threads": print(os.environ.get("OMP_NUM_THREADS"))
if what == "exit": sys.exit(3)
if what == "raise": raise RuntimeError("told to")
if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
if what == "orphan":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if what == "overlap":
    mark = os.path.join(request["place"], str(os.getpid()))
    open(mark, "w").close()
    print(len(os.listdir(request["place"])))
    time.sleep(0.3)
    os.remove(mark)
if what == "hang":
    print("hanging", flush=True)
    time.sleep(600)
"""
COMMAND = (sys.executable, "-c", DO)


def job(tmp_path: Path, name: str, do: str, **more: str) -> Job:
    return Job(name, {"do": do, **more}, tmp_path / "out" / name)


def output(tmp_path: Path, name: str) -> str:
    return (tmp_path / "out" / name).read_text()


def exists(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_every_death_is_told_and_stops_nobody_else(tmp_path: Path) -> None:
    jobs = [job(tmp_path, what, what) for what in ("nothing", "exit", "raise", "kill", "last")]
    ended, stopped_by = run_jobs(jobs, workers=2, command=COMMAND)
    assert [end.exit_code for end in ended] == [0, 3, 1, -9, 0]
    assert stopped_by == 0
    assert "told to" in output(tmp_path, "raise")


def test_at_most_workers_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    run_jobs([job(tmp_path, str(i), "overlap", place=str(place)) for i in range(5)], 2, command=COMMAND)
    assert max(int(output(tmp_path, str(i))) for i in range(5)) <= 2


def test_threads_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run_jobs([job(tmp_path, "two", "threads")], 2, command=COMMAND)
    run_jobs([job(tmp_path, "one", "threads")], 1, command=COMMAND)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run_jobs([job(tmp_path, "mine", "threads")], 2, command=COMMAND)
    told = [output(tmp_path, name).strip() for name in ("two", "one", "mine")]
    assert told == [str(max(1, cores() // 2)), "None", "5"]


def test_the_watcher_sees_pids_and_ends(tmp_path: Path) -> None:
    seen: dict[int, int] = {}

    def watch(running: Mapping[int, int], ended: Mapping[int, Ended]) -> None:
        seen.update(running)
        assert not set(running) & set(ended)

    ended, _ = run_jobs([job(tmp_path, "a", "nothing"), job(tmp_path, "b", "exit")], 1, watch, COMMAND)
    assert seen == {0: ended[0].pid, 1: ended[1].pid}


def test_what_a_killed_child_leaves_behind_is_killed(tmp_path: Path) -> None:
    run_jobs([job(tmp_path, "orphan", "orphan")], 1, command=COMMAND)
    orphan = int(output(tmp_path, "orphan"))
    assert wait_for(lambda: not exists(orphan))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_children_and_starts_no_more(tmp_path: Path, number: int) -> None:
    def stop() -> None:
        wait_for(lambda: (tmp_path / "out" / "a").exists() and "hanging" in output(tmp_path, "a"))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    before = signal.getsignal(number)
    jobs = [job(tmp_path, "a", "hang"), job(tmp_path, "b", "nothing")]
    ended, stopped_by = run_jobs(jobs, 1, command=COMMAND)
    thread.join()
    assert stopped_by == number
    # Python turns SIGINT into KeyboardInterrupt and then ends as if killed by it.
    assert [end.exit_code for end in ended] == [-number, None]
    assert signal.getsignal(number) is before
    assert not exists(ended[0].pid)


def test_a_watcher_that_raises_leaves_no_child(tmp_path: Path) -> None:
    pids: list[int] = []

    def watch(running: Mapping[int, int], ended: Mapping[int, Ended]) -> None:
        pids.extend(running.values())
        raise RuntimeError("no table")

    with pytest.raises(RuntimeError, match="no table"):
        run_jobs([job(tmp_path, "a", "hang")], 1, watch, COMMAND)
    assert pids
    assert not exists(pids[0])


def test_a_child_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The real child, under a parent that dies with SIGKILL."""
    plain = {"config": {"plugins": ["tests.launch.slow_start"]}, "manifest_digest": "x"}
    parent_code = (
        "import json, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'sage.launch.child'], stdin=subprocess.PIPE)\n"
        f"child.stdin.write(({json.dumps(plain)!r} + chr(10)).encode()); child.stdin.flush()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", parent_code]
    parent = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert exists(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not exists(child))

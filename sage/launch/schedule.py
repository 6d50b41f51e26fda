"""Child processes, n at a time: whatever happens to one of them, the others run and all are accounted for.

Invariant: every job given to `run_jobs` ends in exactly one `Ended`, and when `run_jobs` returns or raises,
no child of it is alive. Each child leads a process group of its own, so a Ctrl-C on the terminal reaches the
parent alone, which passes it on; what a killed child leaves behind in its group is killed too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from sage.signals import heeded

CHILD = (sys.executable, "-m", "sage.launch.child")
STOP_GRACE_S = 60.0
"""Between passing a signal on and killing: time for the children's checkpoints."""
POLL_S = 0.1
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Job:
    """One child to start. `request` goes to its stdin as a JSON line; its output is appended to `console`."""

    name: str
    request: Mapping[str, Any]
    console: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit code, negative for a signal; None where it was never started."""

    exit_code: int | None
    pid: int = 0
    seconds: float = 0.0
    reason: str = ""
    """Where it is not the child that tells: what became of the job it was to run in."""


@dataclass(slots=True)
class _Child:
    index: int
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)


_alive: dict[int, subprocess.Popen[bytes]] = {}
"""pid to every child of this process that has not been reaped."""

Watch = Callable[[Mapping[int, int], Mapping[int, Ended]], None]
"""Called between polls with index → pid of the running jobs and index → end of the ended ones."""


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    watch: Watch | None = None,
    command: Sequence[str] = CHILD,
    second_kills: bool = True,
) -> tuple[list[Ended], int]:
    """Run all jobs, at most `workers` at a time: how each ended, and the signal that stopped us (0: none).

    `second_kills`: a second signal kills the children over their checkpoints, as somebody at a terminal
    expects; a scheduler may send the same one several times.
    """
    running: dict[int, _Child] = {}
    ended: dict[int, Ended] = {}
    waiting = list(range(len(jobs)))
    environment = _environment(workers)
    with caught_signals() as caught:
        deadline = 0.0
        try:
            while running or (waiting and not caught):
                while waiting and len(running) < workers and not caught:
                    index = waiting.pop(0)
                    running[index] = _start(index, jobs[index], command, environment)
                if caught and not deadline:
                    deadline = time.monotonic() + STOP_GRACE_S
                    for child in running.values():
                        _signal(child.process, caught[0])
                if deadline and (time.monotonic() > deadline or (second_kills and len(caught) > 1)):
                    for child in running.values():
                        _signal(child.process, signal.SIGKILL)
                for index, child in list(running.items()):
                    if (code := _reap(child.process)) is not None:
                        del running[index]
                        ended[index] = Ended(code, child.process.pid, time.monotonic() - child.started)
                if watch is not None:
                    watch({i: c.process.pid for i, c in running.items()}, ended)
                if running:
                    time.sleep(POLL_S)
        finally:
            for child in running.values():
                _signal(child.process, signal.SIGKILL)
                _reap(child.process, wait=True)
        return [ended.get(i, Ended(None)) for i in range(len(jobs))], caught[0] if caught else 0


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _environment(workers: int) -> dict[str, str]:
    """The children's environment: with several at once, their threads share the cores. The user's own win."""
    if workers == 1:
        return dict(os.environ)
    share = str(max(1, cores() // workers))
    return {**dict.fromkeys(_THREADS, share), "TOKENIZERS_PARALLELISM": "false", **os.environ}


def _start(index: int, job: Job, command: Sequence[str], environment: Mapping[str, str]) -> _Child:
    job.console.parent.mkdir(parents=True, exist_ok=True)
    with job.console.open("ab") as console:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    stdin: IO[bytes] | None = process.stdin
    assert stdin is not None
    with suppress(BrokenPipeError):  # it died at once; its exit code will say so
        stdin.write(json.dumps(job.request).encode() + b"\n")
        stdin.flush()
    _alive[process.pid] = process
    return _Child(index, process)


def stop_children(grace_s: float = STOP_GRACE_S) -> None:
    """SIGTERM to every child, and wait until they have gone; for a signal handler that will not return.

    Nothing is reaped here, since the interrupted `run_jobs` does that.
    """
    for process in _alive.values():
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        left = False
        for pid in _alive:
            with suppress(ChildProcessError):
                left |= os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
        if not left:
            return
        time.sleep(POLL_S)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the child alone, or with SIGKILL to its whole group."""
    with suppress(ProcessLookupError, PermissionError):
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _reap(process: subprocess.Popen[bytes], wait: bool = False) -> int | None:
    """Its exit code once it has ended. Its group is killed while its pid cannot yet be another process's."""
    if hasattr(os, "waitid"):
        flags = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
        with suppress(ChildProcessError):
            if os.waitid(os.P_PID, process.pid, flags) is None:
                return None
    elif not wait and process.poll() is None:
        return None
    _signal(process, signal.SIGKILL)
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    _alive.pop(process.pid, None)
    return process.wait()


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """SIGINT, SIGTERM and SIGHUP that came while the block runs, in order, instead of their usual effect; a
    SIGHUP that is not the first is left out, for a logout sends one after its SIGTERM."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        if not caught or number in (signal.SIGINT, signal.SIGTERM):
            caught.append(number)

    try:
        before = {number: signal.signal(number, catch) for number in heeded()}
    except ValueError:  # not the main thread: whoever is there handles signals
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

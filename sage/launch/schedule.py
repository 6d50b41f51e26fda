"""Jobs side by side: whatever happens to one of them, the others run and all are accounted for.

Invariant: every job given to `run_in` ends in exactly one `Ended`, and when `run_jobs` returns or raises, no
child of it is alive. Each child leads a process group of its own, so a Ctrl-C on the terminal reaches the
parent alone, which passes it on; what a killed child leaves behind in its group is killed too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

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


_alive: dict[int, subprocess.Popen[bytes]] = {}
"""pid to every child of this process that has not been reaped."""

Watch = Callable[[Mapping[int, int], Mapping[int, Ended]], None]
"""Called between polls with index → pid of the running jobs and index → end of the ended ones."""


class Place(Protocol):
    """Where jobs run. What `submit` returns stands for a job until it has ended."""

    limit: int
    """Jobs that may be submitted and not ended."""
    at_once: int
    """Jobs that are submitted together; between two submissions a signal is looked for."""
    poll_s: float

    def submit(self, jobs: Sequence[Job]) -> Sequence[Any]:
        """Start them, or hand them to a queue: one task each."""

    def poll(self, task: Any) -> Ended | None:
        """How it ended, None while it waits or works."""

    def pid(self, task: Any) -> int:
        """Of its process, where that is a child of this one; else 0."""

    def ask_to_stop(self, task: Any, number: int) -> None:
        """Pass signal `number` on: its run writes a checkpoint and marks itself."""

    def give_up(self, task: Any) -> Ended | None:
        """It was asked to stop and has not: how it counts, None where it is killed and `poll` will say."""

    def close(self, tasks: Iterable[Any]) -> None:
        """Nobody looks after these any more."""


def run_in(
    place: Place, jobs: Sequence[Job], watch: Watch | None = None, second_kills: bool = True
) -> tuple[list[Ended], int]:
    """Run all jobs there: how each ended, and the signal that stopped us (0: none).

    `second_kills`: a second signal ends the jobs over their checkpoints, as somebody at a terminal expects; a
    scheduler may send the same one several times.
    """
    work = _Work(place, jobs)
    with caught_signals() as caught:
        try:
            while work.live or (work.waiting and not caught):
                while not caught and work.submit_some():
                    pass
                if caught:
                    work.stop(caught[0], at_once=second_kills and len(caught) > 1)
                work.poll()
                if watch is not None:
                    watch({i: place.pid(task) for i, task in work.live.items()}, work.ended)
                if work.live:
                    time.sleep(place.poll_s)
        finally:
            place.close(work.live.values())
        return [work.ended.get(i, Ended(None)) for i in range(len(jobs))], caught[0] if caught else 0


class _Work:
    """The jobs by their index: waiting, live, ended."""

    def __init__(self, place: Place, jobs: Sequence[Job]) -> None:
        self.place, self.jobs = place, jobs
        self.waiting = list(range(len(jobs)))
        self.live: dict[int, Any] = {}
        self.ended: dict[int, Ended] = {}
        self._deadline = 0.0
        """When patience with jobs that were asked to stop ends; 0 while nobody has asked."""

    def submit_some(self) -> bool:
        """Whether any job was left and had room."""
        chosen = self.waiting[: max(0, min(self.place.at_once, self.place.limit - len(self.live)))]
        if chosen:
            tasks = self.place.submit([self.jobs[i] for i in chosen])
            self.live |= dict(zip(chosen, tasks, strict=True))
            del self.waiting[: len(chosen)]
        return bool(chosen)

    def stop(self, number: int, at_once: bool) -> None:
        """Ask every live job once; give up those that have not ended in time, or now."""
        if not self._deadline:
            self._deadline = time.monotonic() + STOP_GRACE_S
            for task in self.live.values():
                self.place.ask_to_stop(task, number)
        if at_once or time.monotonic() > self._deadline:
            for i, task in list(self.live.items()):
                self._note(i, self.place.give_up(task))

    def poll(self) -> None:
        for i, task in list(self.live.items()):
            self._note(i, self.place.poll(task))

    def _note(self, index: int, end: Ended | None) -> None:
        if end is not None:
            self.ended[index] = end
            del self.live[index]


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)


class Children:
    """This machine: `workers` child processes at a time, each in a process group of its own."""

    at_once = 1
    poll_s = POLL_S

    def __init__(self, workers: int, command: Sequence[str] = CHILD) -> None:
        self.limit = workers
        self._command = command
        self._environment = _environment(workers)

    def submit(self, jobs: Sequence[Job]) -> list[_Child]:
        return [_start(job, self._command, self._environment) for job in jobs]

    def poll(self, task: _Child) -> Ended | None:
        code = _reap(task.process)
        return None if code is None else Ended(code, task.process.pid, time.monotonic() - task.started)

    def pid(self, task: _Child) -> int:
        return task.process.pid

    def ask_to_stop(self, task: _Child, number: int) -> None:
        _signal(task.process, number)

    def give_up(self, task: _Child) -> Ended | None:
        _signal(task.process, signal.SIGKILL)
        return None

    def close(self, tasks: Iterable[_Child]) -> None:
        for task in tasks:
            _signal(task.process, signal.SIGKILL)
            _reap(task.process, wait=True)


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    watch: Watch | None = None,
    command: Sequence[str] = CHILD,
    second_kills: bool = True,
) -> tuple[list[Ended], int]:
    """`run_in` child processes of this one, at most `workers` at a time."""
    return run_in(Children(workers, command), jobs, watch, second_kills)


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


def _start(job: Job, command: Sequence[str], environment: Mapping[str, str]) -> _Child:
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
    return _Child(process)


def stop_children() -> None:
    """SIGTERM to every child, and wait until they have gone; for a signal handler that will not return.

    Nothing is reaped here, since the interrupted `run_jobs` does that.
    """
    for process in _alive.values():
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_GRACE_S
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

"""Runs on other machines: the child process of `schedule.py`, started by a job of SLURM or a task of Ray.

Invariant: as in `schedule.py`, every job ends in exactly one `Ended`. The parent validates, skips what is
done, submits the rest, follows the run directories (which all machines must share) and exports to MLflow;
where it dies, jobs that were submitted go on, and the same line again skips what they have done meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sage.launch.schedule import CHILD, Ended, Job, Watch, run_in, run_jobs
from sage.teacher.ray.cluster import PASSED

LEASE_S = 150.0
"""Longer than it takes to see that a heartbeat has stopped."""


class Task(Protocol):
    """One submitted job."""

    def poll(self) -> Ended | None:
        """How it ended, None while it waits or works."""

    def cancel(self) -> None:
        """Ask it to stop: its run writes a checkpoint and marks itself."""


class Queue(Protocol):
    """Where jobs go. `limit` is how many may be submitted and not ended."""

    limit: int

    def submit(self, runs: Sequence[RemoteRun]) -> Sequence[Task]:
        """One task each."""


@dataclass(frozen=True, slots=True)
class RemoteRun:
    """What is pickled and called there: starts the child in `cwd`, waits for it, passes signals on."""

    job: Job
    cwd: str
    environment: Mapping[str, str]

    def __call__(self) -> tuple[int | None, int]:
        """(exit code, pid) of the child."""
        os.environ.update(self.environment)
        os.chdir(self.cwd)
        ended, _ = run_jobs([self.job], workers=1, command=CHILD, second_kills=False)
        return ended[0].exit_code, ended[0].pid

    def again(self) -> RemoteRun:
        """The same run after its job was preempted: it goes on, whatever `on_existing` said at first, and
        waits for the lease of a process that died without a word."""
        config: dict[str, Any] = dict(self.job.request["config"])
        config["launch"] = {**config["launch"], "on_existing": "resume"}
        request = {**self.job.request, "config": config, "patience_s": LEASE_S}
        return replace(self, job=replace(self.job, request=request))


def remote_run(job: Job, threads: int | None = None) -> RemoteRun:
    """The job with what it needs of this process's surroundings; `threads` limits torch's."""
    environment = {name: os.environ[name] for name in PASSED if name in os.environ}
    if threads is not None and "OMP_NUM_THREADS" not in os.environ:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return RemoteRun(replace(job, console=job.console.resolve()), str(Path.cwd()), environment)


class _Elsewhere:
    """A queue as a place of `schedule.run_in`: each job goes there as a `RemoteRun`."""

    poll_s = 0.5

    def __init__(self, queue: Queue, threads: int | None) -> None:
        self._queue, self._threads = queue, threads
        self.limit = self.at_once = queue.limit

    def submit(self, jobs: Sequence[Job]) -> Sequence[Task]:
        return self._queue.submit([remote_run(job, self._threads) for job in jobs])

    def poll(self, task: Task) -> Ended | None:
        return task.poll()

    def pid(self, task: Task) -> int:
        return 0

    def ask_to_stop(self, task: Task, number: int) -> None:
        task.cancel()

    def give_up(self, task: Task) -> Ended | None:
        return Ended(1, reason="it was told to stop and has not answered")

    def close(self, tasks: Iterable[Task]) -> None:
        """Jobs that were submitted go on."""


def run_remote(
    jobs: Sequence[Job], queue: Queue, watch: Watch | None = None, threads: int | None = None
) -> tuple[list[Ended], int]:
    """`run_in` that queue; `threads` limits torch's in each run."""
    return run_in(_Elsewhere(queue, threads), jobs, watch)

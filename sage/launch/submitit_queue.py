"""Runs as jobs of submitit: SLURM, or this machine (`hydra/launcher=submitit_slurm`, `submitit_local`).

submitit writes a pickle and the output of every job below `folder`; ours hold no password. A job that SLURM
preempts or that reaches its time limit is submitted again by submitit, and its run goes on from its
checkpoint.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sage.errors import ConfigError, reason_of
from sage.launch.remote import RemoteRun, Task, run_remote
from sage.launch.schedule import Ended, Job, Watch, cores, stop_children


class Requeued:
    """The callable that submitit pickles; `checkpoint` is its word for what comes after a preemption."""

    def __init__(self, run: RemoteRun) -> None:
        self.run = run

    def __call__(self) -> tuple[int | None, int]:
        return self.run()

    def checkpoint(self) -> Any:
        """Called in the job, in a signal handler, before its process exits: the run writes a checkpoint and
        marks itself."""
        from submitit.helpers import DelayedSubmission

        stop_children()
        return DelayedSubmission(Requeued(self.run.again()))


class SubmititQueue:
    """An executor of submitit. Raises ConfigError where submitit is missing or refuses a parameter."""

    def __init__(self, cluster: str, folder: str, parameters: Mapping[str, Any], **options: Any) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ConfigError(
                f"hydra/launcher=submitit_{cluster} needs submitit: pip install 'sage-opd[submitit]'."
            ) from error
        given = {key: value for key, value in parameters.items() if value is not None}
        try:
            self._executor = submitit.AutoExecutor(folder=Path(folder).resolve(), cluster=cluster, **options)
            self._executor.update_parameters(**given)
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            reason = reason_of(error)
            raise ConfigError(f"submitit refuses cluster {cluster!r} with {given}: {reason}.") from error
        self._local = cluster == "local"
        self.limit = 10_000  # SLURM has limits of its own, and slurm_array_parallelism

    def submit(self, runs: Sequence[RemoteRun]) -> list[Task]:
        with self._executor.batch():
            jobs = [self._executor.submit(Requeued(run)) for run in runs]
        return [_SubmititTask(job, self._local) for job in jobs]


class _SubmititTask:
    def __init__(self, job: Any, local: bool) -> None:
        self._job, self._local = job, local

    def poll(self) -> Ended | None:
        if not self._job.done():
            return None
        try:
            exit_code, pid = self._job.result()
        except Exception as error:  # each executor has its own; the first line says what happened to the job
            why = reason_of(error)
            return Ended(1, reason=f"its job {self._job.job_id} was lost ({self._job.state}): {why}")
        return Ended(exit_code, pid)

    def cancel(self) -> None:
        if not self._local:
            self._job.cancel(check=False)
            return
        # A local job's id is its controller's pid. submitit's own cancel leaves the run one second.
        with suppress(ProcessLookupError):
            os.kill(int(self._job.job_id), signal.SIGTERM)


def engine(section: Mapping[str, Any]) -> Callable[..., tuple[list[Ended], int]]:
    """`run_jobs` through submitit, with the settings of `conf/hydra/launcher/submitit_*.yaml`."""

    def run(jobs: Sequence[Job], workers: int, watch: Watch) -> tuple[list[Ended], int]:
        queue = SubmititQueue(**section)
        local = section["cluster"] == "local"
        if local:  # nothing there limits how many go side by side
            queue.limit = workers
        return run_remote(jobs, queue, watch, max(1, cores() // workers) if local and workers > 1 else None)

    return run

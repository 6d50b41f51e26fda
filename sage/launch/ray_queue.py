"""Runs as tasks of a Ray cluster, this machine's own or one that is up (`hydra/launcher=ray`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage.errors import ConfigError, reason_of
from sage.launch.remote import RemoteRun, Task, remote_run, run_remote
from sage.launch.schedule import Ended, Job, Watch

_RESOURCES = ("num_cpus", "num_gpus", "object_store_memory")


def call(run: RemoteRun) -> tuple[int | None, int]:
    """What a Ray worker executes."""
    return run()


class RayQueue:
    """The cluster that `init` (arguments of `ray.init`) names; `remote` are the resources of one run.

    Raises ConfigError where Ray is missing or the cluster cannot be reached.
    """

    def __init__(
        self, init: Mapping[str, Any], remote: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Else Ray warns at each task without a GPU that it will stop hiding the GPUs one day.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError("hydra/launcher=ray needs Ray: pip install 'sage-opd[ray]'.") from error
        self._ray = ray
        given = {key: value for key, value in init.items() if value is not None}
        if given.get("address"):  # a cluster that is up has its resources already
            given = {key: value for key, value in given.items() if key not in _RESOURCES}
        if not ray.is_initialized():
            try:
                ray.init(
                    **given,
                    runtime_env={"env_vars": dict(environment)},
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                    configure_logging=True,
                )
            except (ConnectionError, ValueError, RuntimeError, TypeError) as error:
                reason = reason_of(error).rstrip(".")
                raise ConfigError(f"The Ray cluster of {given} cannot be used: {reason}.") from error
        self._call = ray.remote(max_retries=0, **{k: v for k, v in remote.items() if v is not None})(call)
        self.limit = 10_000  # tasks that wait for resources cost nothing

    def submit(self, runs: Sequence[RemoteRun]) -> list[Task]:
        return [_RayTask(self._ray, self._call.remote(run)) for run in runs]


class _RayTask:
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def poll(self) -> Ended | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            exit_code, pid = self._ray.get(self._reference)
        except self._ray.exceptions.TaskCancelledError:
            return Ended(None)
        except Exception as error:  # a worker or a node that died, or a package that is missing there
            lines = [line for line in str(error).strip().splitlines() if line] or [type(error).__name__]
            return Ended(1, reason=f"its Ray task was lost: {type(error).__name__}: {lines[-1].strip()}")
        return Ended(exit_code, pid)

    def cancel(self) -> None:
        self._ray.cancel(self._reference)


def engine(section: Mapping[str, Any]) -> Callable[..., tuple[list[Ended], int]]:
    """`run_jobs` through Ray, with the settings of `conf/hydra/launcher/ray.yaml`."""

    def run(jobs: Sequence[Job], workers: int, watch: Watch) -> tuple[list[Ended], int]:
        environment = remote_run(jobs[0]).environment
        return run_remote(jobs, RayQueue(section["init"], section["remote"], environment), watch)

    return run

"""`hydra/launcher=sage`, the default of a multirun: every run in a child process (see `sage.launch`).

`submitit_local`, `submitit_slurm` and `ray` start the same child elsewhere.

Hydra 1.3 accepts plugin classes only under the top-level namespace `hydra_plugins`, and imports every module
there at each start; so this one imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SageLauncher(Launcher):
    """Composes and validates all runs of a batch before the first starts, then schedules them."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from sage.launch.multirun import launch

        assert self.context is not None
        assert self.config is not None
        # Hydra's copy of the last sweep's config says less than the runs' own, and may hold a password.
        (Path(str(self.config.hydra.sweep.dir)) / "multirun.yaml").unlink(missing_ok=True)
        loader: Any = self.context.config_loader
        composed = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        returns = []
        outcomes = launch(composed, job_overrides, self._engine())
        for outcome, overrides in zip(outcomes, job_overrides, strict=True):
            job = JobReturn(overrides=overrides, working_dir=str(outcome.folder or ""))
            # A run that failed has the value None: Hydra's sweeper raises at the first FAILED one, and the
            # others would go untold. The table and the exit code tell all of them.
            job.status, job.return_value = JobStatus.COMPLETED, None if outcome.exit_code else outcome.success
            returns.append(job)
        return returns

    def _engine(self) -> Any:
        from sage.launch.schedule import run_jobs

        return run_jobs


class SubmititLauncher(SageLauncher):
    """The runs as jobs of submitit; `section` is `conf/hydra/launcher/submitit_*.yaml`."""

    def __init__(self, **section: Any) -> None:
        super().__init__()
        self.section = section

    def _engine(self) -> Any:
        from sage.launch.submitit_queue import engine

        return engine(_plain(self.section))


class RayLauncher(SageLauncher):
    """The runs as tasks of Ray; `section` is `conf/hydra/launcher/ray.yaml`."""

    def __init__(self, **section: Any) -> None:
        super().__init__()
        self.section = section

    def _engine(self) -> Any:
        from sage.launch.ray_queue import engine

        return engine(_plain(self.section))


def _plain(section: dict[str, Any]) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(section), resolve=True)

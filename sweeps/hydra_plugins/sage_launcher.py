"""`hydra/launcher=sage`, the default of a multirun: every run in a child process (see `sage.launch`).

Hydra 1.3 accepts plugin classes only under the top-level namespace `hydra_plugins`, and imports every module
there at each start; so this one imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
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

        assert self.context is not None and self.config is not None
        loader: Any = self.context.config_loader
        composed = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        return launch(composed, job_overrides)

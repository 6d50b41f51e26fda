"""`hydra/sweeper=study`: the runs that a file in `conf/study/` declares (see `sage.launch.study`).

Chosen by those files. Imports nothing heavy: Hydra imports every plugin module at each start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """Gives the launcher every run of the study in one batch."""

    def __init__(self, **section: Any) -> None:
        self.section = section
        self.launcher: Any = None
        self.config: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        from omegaconf import OmegaConf

        from sage.launch.multirun import LEDGER
        from sage.launch.study import expand, read
        from sage.launch.until import DECIDED, UNTIL, conduct, setting

        section = OmegaConf.to_container(OmegaConf.create(self.section), resolve=True)
        assert isinstance(section, dict)
        jobs, note = expand(read({str(k): v for k, v in section.items()}), arguments)
        if note:
            print(note, flush=True)

        def launch(batch: list[list[str]]) -> Sequence[Any]:
            return list(self.launcher.launch(batch, initial_job_idx=0))

        ours = self.config.launch
        if setting(jobs, UNTIL, ours.until) == DECIDED:
            return conduct(jobs, launch, Path(setting(jobs, "launch.runs_dir", ours.runs_dir)), LEDGER)
        return launch(jobs)

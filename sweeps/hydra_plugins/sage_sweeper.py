"""`hydra/sweeper=sage`: an Optuna study whose trials are runs of the launcher (see `sage.sweep`).

Chosen by the files in `sweeps/`. Imports nothing heavy: Hydra imports every plugin module at each start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SageSweeper(Sweeper):
    """Searches, or confirms what was found (`python -m sage confirm`)."""

    def __init__(self, **section: Any) -> None:
        self.section = section
        self.context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        from omegaconf import OmegaConf

        from sage.sweep.conduct import conduct

        assert self.context is not None
        assert self.config is not None
        section = OmegaConf.to_container(OmegaConf.create(self.section), resolve=True)
        assert isinstance(section, dict)
        conduct({str(k): v for k, v in section.items()}, arguments, self.launcher, self.context, self.config)
        return []

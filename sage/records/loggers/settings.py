"""The loggers that come with the package, by name: their settings alone."""

from __future__ import annotations

import os
import shlex

from sage.config.local_path import LocalPath
from sage.config.registry import loggers
from sage.records.loggers.base import Destination, Logger


@loggers.register("tensorboard")
class TensorBoard(Logger):
    """Event files for TensorBoard: curves, settings (HPARAMS) and turns (TEXT)."""

    folder: LocalPath
    """Below it every run gets a folder of its own; `tensorboard --logdir` shows it."""

    def open(self) -> Destination:
        from sage.records.loggers.tensorboard import EventFile

        return EventFile(self.folder)

    def look(self) -> str:
        return shlex.join(["tensorboard", "--logdir", self.folder])


@loggers.register("wandb")
class WeightsAndBiases(Logger):
    """Weights & Biases, with the mode, the key, the account and the folder that wandb itself is told of
    (`WANDB_MODE`, `WANDB_API_KEY`, `WANDB_ENTITY`, `WANDB_DIR`, ...): curves, settings and turns."""

    project: str
    """Project of the account; `auto` is WANDB_PROJECT, else `sage`."""

    def open(self) -> Destination:
        from sage.records.loggers.wandb import WandbRun

        named = os.environ.get("WANDB_PROJECT") or "sage"
        return WandbRun(named if self.project == "auto" else self.project)

    def look(self) -> str:
        offline = os.environ.get("WANDB_MODE") == "offline"
        return "wandb sync" if offline else ""


@loggers.register("trackio")
class Trackio(Logger):
    """Trackio's store on this machine (below `TRACKIO_DIR`, else where Trackio keeps it): curves, settings
    and turns."""

    project: str
    """Project of the store; `trackio show --project` shows it."""

    def open(self) -> Destination:
        from sage.records.loggers.trackio import TrackioRun

        return TrackioRun(self.project)

    def look(self) -> str:
        return shlex.join(["trackio", "show", "--project", self.project])

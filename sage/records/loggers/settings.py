"""The loggers that come with the package, by name: their settings alone."""

from __future__ import annotations

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

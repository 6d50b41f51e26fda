"""The exports that a run's tracking settings ask for: MLflow's, and one of each logger beside it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sage.config.schema import TrackingSettings
from sage.records.loggers.base import Logger
from sage.records.loggers.follow import ExportResult, Follower
from sage.records.loggers.note import is_sent
from sage.records.mlflow.follow import Exporter, is_exported

MLFLOW = "mlflow"


class LoggerExporter(Follower):
    """One child process that exports any number of run directories to a logger beside MLflow."""

    def __init__(self, label: str, log: Path, poll_s: float = 5.0) -> None:
        self.name = label
        command = [sys.executable, "-m", "sage.records.loggers.export", "--logger", label]
        super().__init__([*command, "--serve", "--poll", str(poll_s)], os.environ, log)

    def by_hand(self, run_dir: Path) -> str:
        command = ["python", "-m", "sage.records.loggers.export", str(run_dir), "--logger", self.name]
        return shlex.join(command)


class Exports:
    """All of a run's, or of a multirun's, as one."""

    def __init__(self, tracking: TrackingSettings, log_of: Callable[[str], Path]) -> None:
        """`log_of` makes the file that a logger's child writes its errors to, of the logger's name."""
        self._each: dict[str, Follower] = {}
        if tracking.mlflow:
            self._each[MLFLOW] = Exporter(tracking.uri, log_of(MLFLOW))
        for label in tracking.loggers:
            self._each[label] = LoggerExporter(label, log_of(label))

    def follow(self, run_dir: Path) -> None:
        """Export this run directory now and as it grows."""
        for follower in self._each.values():
            follower.follow(run_dir)

    def make_up_for(self, run_dirs: Sequence[Path]) -> None:
        """Export of these finished runs what was cut off: by a power cut, say, or a server that was down."""
        for label, follower in self._each.items():
            for path in run_dirs:
                if not _is_complete(path, label):
                    follower.follow(path)

    def finish(self) -> list[ExportResult]:
        """Wait until everything followed is exported; one result for each directory and logger."""
        return [result for follower in self._each.values() for result in follower.finish()]

    def remove_logs(self) -> None:
        """They have nothing to tell."""
        for follower in self._each.values():
            follower.log.unlink(missing_ok=True)


def is_tracked(tracking: TrackingSettings) -> bool:
    """Whether anything is exported."""
    return tracking.mlflow or bool(tracking.loggers)


def any_behind(tracking: TrackingSettings, run_dirs: Sequence[Path]) -> bool:
    """Whether a logger lacks any of these finished runs."""
    labels = [*([MLFLOW] if tracking.mlflow else []), *tracking.loggers]
    return any(not _is_complete(path, label) for path in run_dirs for label in labels)


def look_lines(tracking: TrackingSettings) -> list[str]:
    """How to look at what the loggers beside MLflow hold, a line each."""
    each = {label: logger for label, logger in tracking.loggers.items() if isinstance(logger, Logger)}
    return [f"{label}: {line}" for label, logger in each.items() if (line := logger.look())]


def _is_complete(run_dir: Path, label: str) -> bool:
    return is_exported(run_dir) if label == MLFLOW else is_sent(run_dir, label)

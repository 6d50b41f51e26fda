"""The child process that exports to MLflow, and what says whether it came to its end."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from sage.records.loggers.follow import Follower
from sage.records.loggers.note import is_complete
from sage.records.mlflow.store import SHORT_RETRIES, resolve_uri
from sage.redaction import redact


def is_exported(run_dir: Path) -> bool:
    """`is_complete` of MLflow's note."""
    return is_complete(run_dir / "mlflow.json")


def export_command(run_dir: Path, uri: str) -> str:
    """The line that exports a run directory by hand."""
    command = ["python", "-m", "sage.records.mlflow.export", str(run_dir), "--uri", redact(uri)]
    return shlex.join(command)


class Exporter(Follower):
    """One child process that exports any number of run directories to one MLflow store."""

    name = "MLflow"

    def __init__(self, uri: str, log: Path, poll_s: float = 5.0) -> None:
        self.uri = resolve_uri(uri)
        # The URI may hold a password: it goes through the environment, not through `ps`.
        environment = SHORT_RETRIES | os.environ | {"MLFLOW_TRACKING_URI": self.uri}
        command = [sys.executable, "-m", "sage.records.mlflow.export", "--serve", "--poll", str(poll_s)]
        super().__init__(command, environment, log)

    def by_hand(self, run_dir: Path) -> str:
        return export_command(run_dir, self.uri)

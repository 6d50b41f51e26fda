"""The run's side of the MLflow export: a child process that follows run directories.

Invariant: nothing here raises or waits for MLflow while a run works; a store that is slow, full, dead or
not installed costs the run one sentence at the end. The child imports MLflow (seconds) while the run does
its own set-up, sends what is recorded as it comes, and completes each MLflow run when its directory is
finished, or as it stands when the run's process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sage
from sage.records.files import Unreadable, read_object
from sage.redaction import redact

SHORT_RETRIES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Defaults of the child's environment; the user's own win. MLflow's would retry a dead server for minutes."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What became of one run directory's export. `error` is one sentence, empty where it worked."""

    run_dir: str
    run_id: str = ""
    error: str = ""


def resolve_uri(uri: str) -> str:
    """`auto` is MLFLOW_TRACKING_URI, else mlflow.db in the current directory; makes SQLite paths absolute."""
    if uri == "auto":
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    relative = uri.removeprefix("sqlite:///")
    if relative != uri and not relative.startswith(("/", ":memory:")):
        uri = f"sqlite:///{Path(relative).resolve()}"
    return uri


def is_exported(run_dir: Path) -> bool:
    """Whether an export of this finished run came to its end; a killed one is made up for later."""
    try:
        return bool((read_object(run_dir / "mlflow.json") or {}).get("complete"))
    except Unreadable:
        return False


def export_command(run_dir: Path, uri: str) -> str:
    """The line that exports a run directory by hand."""
    command = ["python", "-m", "sage.records.mlflow.export", str(run_dir), "--uri", redact(uri)]
    return shlex.join(command)


def view_hint(uri: str) -> str:
    """How to look at the store."""
    if uri.startswith(("http://", "https://")):
        return f"open {redact(uri)}"
    return shlex.join(["mlflow", "ui", "--backend-store-uri", redact(uri)])


def _appended(log: Path) -> Any:
    """The log, open for the child's errors; nowhere, where the disk takes no file more."""
    try:
        return log.open("a", encoding="utf-8")
    except OSError:
        return open(os.devnull, "w", encoding="utf-8")


class Exporter:
    """One child process that exports any number of run directories to one store.

    `follow` as soon as a run directory exists; `finish` once after the last run ended. Use one for a whole
    sweep: MLflow is then imported once.
    """

    def __init__(self, uri: str, log: Path, poll_s: float = 5.0) -> None:
        self.uri = resolve_uri(uri)
        self.log = Path(log)
        self.results: list[ExportResult] = []
        self._pending: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._problem = ""
        package_root = str(Path(sage.__file__).resolve().parent.parent)
        search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        # The URI may hold a password: it goes through the environment, not through `ps`.
        environment = SHORT_RETRIES | os.environ | {"MLFLOW_TRACKING_URI": self.uri, "PYTHONPATH": search}
        command = [sys.executable, "-m", "sage.records.mlflow.export", "--serve", "--poll", str(poll_s)]
        try:
            with _appended(self.log) as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=environment,
                    # Ctrl-C is for the run: the child then sees it end, and exports what there is.
                    start_new_session=True,
                    encoding="utf-8",
                )
        except OSError as error:
            self._problem = f"its process cannot be started ({error.strerror or error})"
            return
        self._reader = threading.Thread(target=self._read, name="mlflow-export", daemon=True)
        self._reader.start()

    def follow(self, run_dir: Path, *, parent: str = "", tags: dict[str, str] | None = None) -> None:
        """Export this run directory now and as it grows. `parent` is a parent MLflow run's id."""
        path = str(Path(run_dir).resolve())
        self._pending.append(path)
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            line = json.dumps({"run_dir": path, "parent": parent, "tags": tags or {}})
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def finish(self, timeout_s: float = 120.0) -> list[ExportResult]:
        """Wait until everything followed is exported; one result each, in the order of `follow`."""
        late = f"MLflow did not take the run within {timeout_s:.0f} s"
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout_s)
                late = f"the MLflow export stopped early (its log is {self.log})"
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._reader.join(timeout=5)
            if not self._reader.is_alive() and self._process.stdout is not None:
                self._process.stdout.close()
        late = self._problem or late
        known = {result.run_dir: result for result in self.results}
        return [
            known.get(path) or ExportResult(path, error=self.explain(late, Path(path)))
            for path in dict.fromkeys(self._pending)
        ]

    def explain(self, problem: str, run_dir: Path) -> str:
        """One sentence: what happened, that nothing is lost, what to type."""
        return (
            f"Not in MLflow: {problem}; the records are complete in {run_dir}, "
            f"export them later with `{export_command(run_dir, self.uri)}`."
        )

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError, TypeError):
                result = ExportResult(**json.loads(line))
                if result.error:
                    sentence = self.explain(result.error, Path(result.run_dir))
                    result = ExportResult(result.run_dir, result.run_id, sentence)
                self.results.append(result)

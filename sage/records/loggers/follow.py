"""A child process that brings a logger's store up to date with run directories while they grow: both ends.

Invariant: nothing here raises or waits for a logger while a run works; a store that is slow, full, dead or
not installed costs the run one sentence at the end. The child imports the logger's package while the run does
its own set-up, sends what is recorded as it comes, and completes each run in the store when its directory is
finished, or as it stands when the run's process dies. One child a logger: none waits for another.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sage
from sage.records.rundir import RunDir


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What became of one run directory's export. `error` is one sentence, empty where it worked."""

    run_dir: str
    run_id: str = ""
    error: str = ""


def _appended(log: Path) -> Any:
    """The log, open for the child's errors; nowhere, where the disk takes no file more."""
    try:
        return log.open("a", encoding="utf-8")
    except OSError:
        return open(os.devnull, "w", encoding="utf-8")


class Follower:
    """One child process that exports any number of run directories to one logger.

    `follow` as soon as a run directory exists; `finish` once after the last run ended. Use one for a whole
    sweep: the logger's package is then imported once. A logger's class says what starts its child and what
    exports a directory by hand.
    """

    name: str
    """What the logger is called in sentences."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = Path(log)
        self.results: list[ExportResult] = []
        self._pending: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._problem = ""
        package_root = str(Path(sage.__file__).resolve().parent.parent)
        search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        try:
            with _appended(self.log) as errors:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env={**environment, "PYTHONPATH": search},
                    # Ctrl-C is for the run: the child then sees it end, and exports what there is.
                    start_new_session=True,
                    encoding="utf-8",
                )
        except OSError as error:
            self._problem = f"its process cannot be started ({error.strerror or error})"
            return
        self._reader = threading.Thread(target=self._read, name=f"{self.name}-export", daemon=True)
        self._reader.start()

    def by_hand(self, run_dir: Path) -> str:
        """The line that exports a run directory by hand."""
        raise NotImplementedError

    def follow(self, run_dir: Path) -> None:
        """Export this run directory now and as it grows."""
        path = str(Path(run_dir).resolve())
        self._pending.append(path)
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            line = json.dumps({"run_dir": path})
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def finish(self, timeout_s: float = 120.0) -> list[ExportResult]:
        """Wait until everything followed is exported; one result each, in the order of `follow`."""
        late = f"{self.name} did not take the run within {timeout_s:.0f} s"
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout_s)
                late = f"the {self.name} export stopped early (its log is {self.log})"
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
            f"Not in {self.name}: {problem}; the records are complete in {run_dir}, "
            f"export them later with `{self.by_hand(run_dir)}`."
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


RETRY_S = 30.0
"""Pause of the live export after a failure; the final export is tried once whatever happened before."""


class Syncing(Protocol):
    """Brings a store up to date with one run directory: `sage.records.mlflow.export.RunExport`, and
    `sage.records.loggers.export.StepwiseExport` for the others."""

    run: RunDir

    def sync(self, final: bool) -> str: ...


def serve(export: Callable[[Path], Syncing], explain: Callable[[Exception], str], poll_s: float) -> int:
    """Follow run directories named on stdin (JSON lines) until it closes or the parent dies.

    One JSON line to stdout for each directory when its export is complete or has failed for good; returns 1
    where any has failed. `export` makes what a directory is exported by; `explain` says in one sentence what
    went wrong with the store.
    """
    return _Followed(export, explain).serve(poll_s)


class _Followed:
    """The run directories that a server follows, each exported a little at a time."""

    def __init__(self, export: Callable[[Path], Syncing], explain: Callable[[Exception], str]) -> None:
        self._export, self._explain = export, explain
        self._parent = os.getppid()
        self._wanted: queue.SimpleQueue[dict[str, str] | None] = queue.SimpleQueue()
        self._exports: dict[str, Syncing] = {}
        self._not_before: dict[str, float] = {}
        """Run directory -> the monotonic time before which it is left alone."""
        self._closing = self._failed = False

    def serve(self, poll_s: float) -> int:
        """Returns 1 where any export has failed for good, else 0."""
        threading.Thread(target=self._listen, daemon=True).start()
        while self._exports or not self._closing:
            self._take_messages(0.0 if self._closing else poll_s)
            # Forked children of the parent may hold the pipe open after its death.
            self._closing = self._closing or os.getppid() != self._parent
            for path in list(self._exports):
                self._look_at(path)
        return int(self._failed)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._wanted.put(json.loads(line))
        self._wanted.put(None)

    def _take_messages(self, timeout_s: float) -> None:
        try:
            message = self._wanted.get(timeout=timeout_s)
            while True:
                if message is None:
                    self._closing = True
                else:
                    path = message["run_dir"]
                    self._exports[path] = self._export(Path(path))
                message = self._wanted.get_nowait()
        except queue.Empty:
            pass

    def _look_at(self, path: str) -> None:
        """Export what is new of a run, unless it was looked at just now; at its end answer and forget it."""
        exporting = self._exports[path]
        status = exporting.run.status()
        final = self._closing or (status is not None and status.state != "running")
        if not final and time.monotonic() < self._not_before.get(path, 0.0):
            return
        result = self._synced(path, exporting, final)
        if final:
            del self._exports[path]
            self._failed = self._failed or bool(result["error"])
            try:
                print(json.dumps(result), flush=True)
            except BrokenPipeError:
                sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the parent is gone; go on exporting

    def _synced(self, path: str, exporting: Syncing, final: bool) -> dict[str, str]:
        result = {"run_dir": path, "run_id": "", "error": ""}
        started = time.process_time()
        try:
            result["run_id"] = exporting.sync(final)
            # A long run's tables take long to read: stay below a tenth of one core.
            self._not_before[path] = time.monotonic() + min(9 * (time.process_time() - started), 60)
        except Exception as error:
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            result["error"] = self._explain(error)
            self._not_before[path] = time.monotonic() + RETRY_S
        return result

"""One run of a multirun, from what was found of it before it starts to its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sage.config.schema import RunConfig
from sage.launch.claim import Found
from sage.launch.execute import Outcome
from sage.records.identity import Identity
from sage.records.reader import attempt_dirs
from sage.records.rundir import RunDir, RunStatus


@dataclass(slots=True)
class Row:
    """One run of the multirun, for the table and for the ledger."""

    name: str
    config: RunConfig
    identity: Identity
    found: Found
    pid: int = 0
    folder: RunDir | None = None
    status: RunStatus | None = None
    outcome: Outcome | None = None
    announced: bool = False

    @property
    def home(self) -> Path:
        return Path(self.config.launch.runs_dir) / self.identity.run

    def refresh(self) -> None:
        """Read what the child has written; it is the child's only if its pid says so. Where the child runs
        elsewhere its pid is told at the end, and until then whatever is new is taken for its own."""
        paths, _ = attempt_dirs(self.home)
        known = [RunDir(path) for path in paths]
        status = known[-1].status() if known else None
        if status is not None and (status.pid == self.pid if self.pid else status != self.found.status):
            self.folder, self.status = known[-1], status

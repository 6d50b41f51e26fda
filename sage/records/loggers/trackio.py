"""A run in Trackio's store on this machine. trackio is imported here at the top: import this lazily.

It is written as Trackio's own imports write (`trackio.import_csv`), and not by `trackio.log`: that one gives
every row the time at which it arrives, writes in a thread, and turns what goes wrong into a warning.

A run there is a function of the records: whoever begins one writes it anew under its one id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trackio import Table
from trackio.sqlite_storage import SQLiteStorage

from sage.records.loggers.base import About, Destination, Point
from sage.records.loggers.rows import Row, rows, settings


class TrackioRun(Destination):
    """One run of a project, in the folder that `TRACKIO_DIR` names, else Trackio's own."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._about: About | None = None
        self._written = 0
        """Rows that the store has of the run, unless another process has begun it since."""
        self._turns: Mapping[str, Sequence[Any]] = {}
        self._last = Row(0, 0, {})

    def begin(self, about: About) -> int:
        SQLiteStorage.validate_project_name(self._project)
        self._about, self._turns, self._last = about, {}, Row(0, about.started_ms, {})
        SQLiteStorage.delete_run(self._project, about.name, run_id=about.key)  # says nothing where it fails
        self._written = self._held()
        if self._written:
            raise RuntimeError(f"the run that project {self._project} has cannot be replaced")
        return -1

    def send(self, points: Sequence[Point]) -> None:
        self._write(list(rows(points)))

    def turns(self, table: Mapping[str, Sequence[Any]]) -> None:
        """Sent with the end: each table that is sent stays there beside those before it."""
        self._turns = table

    def end(self, state: str, single: Sequence[Point]) -> None:
        self.send(single)
        cells = [dict(zip(self._turns, row, strict=True)) for row in zip(*self._turns.values(), strict=True)]
        table = {"turns": {"_type": Table.TYPE, "_value": cells}} if cells else {}
        self._write([self._last._replace(values=table)], state)
        if not self.is_alive():
            raise RuntimeError(f"project {self._project} has not all of it")
        self._about = None

    def is_alive(self) -> bool:
        return self._about is not None and self._held() == self._written

    def _begun(self) -> About:
        if self._about is None:
            raise RuntimeError("the run was not begun")
        return self._about

    def _held(self) -> int:
        return int(SQLiteStorage.get_log_count(self._project, run_id=self._begun().key))

    def _write(self, new: list[Row], state: str = "") -> None:
        """In one transaction; with the settings where these rows are the first or the last."""
        about = self._begun()
        if not new:
            return
        config = settings(about.params, about.tags) | ({"state": state} if state else {})
        SQLiteStorage.bulk_log(
            project=self._project,
            run=about.name,
            metrics_list=[row.values for row in new],
            steps=[row.step for row in new],
            timestamps=[datetime.fromtimestamp(row.timestamp_ms / 1000, UTC).isoformat() for row in new],
            config=config if state or not self._written else None,
            run_id=about.key,
        )
        self._written += len(new)
        self._last = new[-1]

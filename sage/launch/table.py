"""What a multirun shows: a live table on a terminal, lines elsewhere; last, one table and all failures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sage.console import make_console
from sage.launch.estimate import Prices, prices, seconds_left
from sage.records.pulse import duration
from sage.records.reader import open_attempt

if TYPE_CHECKING:
    from sage.launch.row import Row


@contextmanager
def open_board(rows: Sequence[Row], list_only: bool) -> Iterator[Board]:
    """The board of a multirun; its final table is printed when the block ends, also by an error."""
    board = Board(rows, make_console())
    try:
        with board.live:
            yield board
    finally:
        board.close(list_only)


class Board:
    """Rows of a multirun and how they are doing."""

    def __init__(self, rows: Sequence[Row], console: Console) -> None:
        self._rows, self._console, self._since = rows, console, time.monotonic()
        self._prices: dict[tuple[str, str], Prices] = {}
        self.live: Any = Live(console=console, refresh_per_second=2, transient=True, auto_refresh=False)
        if not console.is_terminal:
            self.live = _Quiet()

    def started(self, row: Row) -> None:
        pid = row.pid or (row.status.pid if row.status else 0)
        elsewhere = f" on {row.status.host}" if not row.pid and row.status else ""
        self._line(f"started  {row.name} ({row.identity.run}, pid {pid}{elsewhere})")

    def ended(self, row: Row) -> None:
        self._prices.clear()  # it may tell what the others will take
        if row.outcome is not None:
            reason = f": {row.outcome.reason}" if row.outcome.reason else ""
            self._line(f"{row.outcome.state:<8} {row.name}{reason}")

    def note(self, text: str) -> None:
        self.live.console.print(text, soft_wrap=True) if self._console.is_terminal else self._line(text)

    def refresh(self) -> None:
        self.live.update(self._table(), refresh=True)

    def close(self, list_only: bool) -> None:
        """Print the table, then every failure with where to look."""
        self._console.print()
        self._console.print(self._table())
        each = {row.identity.run: row for row in self._rows}.values()
        states = Counter(row.outcome.state if row.outcome else row.found.state for row in each)
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        took = "nothing was run" if list_only else f"in {duration(time.monotonic() - self._since)}"
        different = len({row.identity.run for row in self._rows})
        repeated = f" ({different} different)" if different < len(self._rows) else ""
        count = f"{len(self._rows)} runs{repeated}"
        self._console.print(f"{count}: {told}; {took}.", soft_wrap=True)
        if list_only:
            self._console.print(self._estimate(), soft_wrap=True)
        for row in self._rows:
            if row.outcome is not None and row.outcome.exit_code:
                log = row.home / "console.log"
                where = f" (its output: {log})" if log.exists() else ""
                reason = row.outcome.reason.rstrip(".")
                self._console.print(f"FAILED {row.name}: {reason}{where}", soft_wrap=True)

    def _left(self, row: Row) -> float | None:
        """Seconds until the run is done, where anything tells."""
        if row.outcome is not None or row.found.action == "skip":
            return 0.0
        key = (row.config.env.name, row.config.student.path)
        if key not in self._prices:
            self._prices[key] = prices(row.config)
        resumed = row.found.status if row.found.action == "resume" else None
        return seconds_left(row.config, row.status or resumed, self._prices[key])

    def _estimate(self) -> str:
        """The plan's last line."""
        each = {row.identity.run: row for row in self._rows if row.found.action != "skip"}.values()
        if not each:
            return "Nothing is left to run."
        left = [self._left(row) for row in each]
        known = [seconds for seconds in left if seconds is not None]
        launch = next(iter(each)).config.launch
        if not known:
            return f"No run like these is done in {launch.runs_dir}: no estimate of time."
        total = sum(known) / len(known) * len(left) / min(launch.workers, len(left))
        return (
            f"About {duration(total)} with launch.workers={launch.workers} for the {len(left)} that are "
            f"left, by runs like them in {launch.runs_dir}."
        )

    def _line(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(text, soft_wrap=True)
            self._console.file.flush()

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        splits = list(dict.fromkeys(split for row in self._rows for split in row.config.evaluation.splits))
        table.add_column("run", overflow="fold")
        table.add_column("id", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("progress", no_wrap=True)
        table.add_column("left", justify="right", no_wrap=True)
        for split in splits:
            table.add_column(f"{split} %", justify="right", no_wrap=True)
        for row in self._rows:
            done = _successes(row)
            left = self._left(row)
            shown = duration(left) if left else ""
            cells = [row.name, row.identity.run, _state(row), _progress(row), shown]
            table.add_row(*cells, *(done.get(split, "") for split in splits))
        return table


class _Quiet:
    """Stands in for the live table where nobody watches."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def update(self, *arguments: Any, **options: Any) -> None: ...


def _state(row: Row) -> str:
    if row.outcome is not None:
        return row.outcome.state if row.outcome.state != "skipped" else f"skipped ({row.found.state})"
    if row.status is not None:
        return row.status.state
    return row.found.state if not row.pid else "starting"


def _progress(row: Row) -> str:
    status = row.status or row.found.status
    if status is None:
        return ""
    steps = f"{status.step}/{status.steps}"
    phase = f" {status.phase}" if status.phase and row.outcome is None and row.pid else ""
    now = status.now if phase else None
    done = f" {now.done}/{now.total} {now.unit}" if now and now.total else ""
    rate = f", {now.tokens_per_second:,.0f} tokens/s" if now and now.tokens_per_second else ""
    return steps + phase + done + rate


def _successes(row: Row) -> dict[str, str]:
    """Split to `before → after` in percent, from the run's own summary where there is one."""
    folder = row.folder.path if row.folder else row.found.folder.path if row.found.folder else None
    summary = _summary(folder)
    if summary is not None:
        return {split["split"]: " → ".join(_rates(split["rates"])) for split in summary.get("splits", ())}
    splits = row.config.evaluation.splits
    status = row.status or row.found.status
    if status is not None and status.success is not None and splits:
        return {splits[-1]: f"{100 * status.success:.1f}"}
    return {}


def _rates(rates: Sequence[dict[str, Any]]) -> list[str]:
    ends = [rates[0], rates[-1]] if len(rates) > 1 else list(rates)
    return ["–" if rate["rate"] is None else f"{100 * rate['rate']:.1f}" for rate in ends]


def _summary(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    return open_attempt(folder, tables=False).summary

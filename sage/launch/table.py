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
from sage.signals import told

if TYPE_CHECKING:
    from sage.launch.row import Row

_NAME_WIDTH = 40
"""Of the names of runs where the table has a line for each; longer ones go on below."""


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
            self._line(f"{_end(row):<8} {row.name}{reason}")

    def note(self, text: str) -> None:
        self.live.console.print(text, soft_wrap=True) if self._console.is_terminal else self._line(text)

    def refresh(self) -> None:
        self.live.update(self._table(), refresh=True)

    def close(self, list_only: bool) -> None:
        """Print the table, then every run that did not end well, with where to look."""
        self._console.print()
        self._console.print(self._table())
        each = {row.identity.run: row for row in self._rows}.values()
        states = Counter(_end(row) for row in each)
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        took = "nothing was run" if list_only else f"in {duration(time.monotonic() - self._since)}"
        different = len({row.identity.run for row in self._rows})
        repeated = f" ({different} different)" if different < len(self._rows) else ""
        count = f"{len(self._rows)} runs{repeated}"
        self._console.print(f"{count}: {counts}; {took}.", soft_wrap=True)
        if list_only:
            self._console.print(self._estimate(), soft_wrap=True)
        for row in self._rows:
            if row.outcome is not None and row.outcome.exit_code:
                log = row.home / "console.log"
                where = f" (its output: {log})" if log.exists() else ""
                reason = row.outcome.reason.rstrip(".")
                self._console.print(f"{_end(row).upper()} {row.name}: {reason}{where}", soft_wrap=True)

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
        """A line a run with a column for each split; where the terminal is narrower, a few lines a run."""
        wide = self._wide()
        unbounded = self._console.options.update_width(10_000)
        needed = self._console.measure(wide, options=unbounded).maximum
        return wide if needed <= self._console.width else self._narrow()

    def _left_cell(self, row: Row) -> str:
        left = self._left(row)
        return duration(left) if left else ""

    def _wide(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        splits = list(dict.fromkeys(split for row in self._rows for split in row.config.evaluation.splits))
        table.add_column("run", overflow="fold", max_width=_NAME_WIDTH)
        table.add_column("id", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("progress", no_wrap=True)
        table.add_column("left", justify="right", no_wrap=True)
        for split in splits:
            table.add_column(f"{split} %", justify="right", no_wrap=True)
        for row in self._rows:
            cells = [row.name, row.identity.run, _state(row), _progress(row), self._left_cell(row)]
            done = _results(row)
            table.add_row(*cells, *("\n".join(done.get(split, ())) for split in splits))
        return table

    def _narrow(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("run, id, progress", overflow="fold")
        table.add_column("state", overflow="fold")
        table.add_column("left", justify="right", no_wrap=True)
        table.add_column("success in %", overflow="fold")
        for row in self._rows:
            results = [f"{split} {line}" for split, lines in _results(row).items() for line in lines]
            about = f"{row.name}\n{row.identity.run} {_progress(row)}".rstrip()
            table.add_row(about, _state(row), self._left_cell(row), "\n".join(results))
        return table


class _Quiet:
    """Stands in for the live table where nobody watches."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def update(self, *arguments: Any, **options: Any) -> None: ...


def _end(row: Row) -> str:
    """How it ended, or how it was found."""
    if row.outcome is not None:
        return told(row.outcome.state, row.outcome.reason)
    return _found(row)


def _found(row: Row) -> str:
    return told(row.found.state, row.found.status.reason if row.found.status else "")


def _state(row: Row) -> str:
    if row.outcome is not None:
        return _end(row) if row.outcome.state != "skipped" else f"skipped ({_found(row)})"
    if row.status is not None:
        return told(row.status.state, row.status.reason)
    return _found(row) if not row.pid else "starting"


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


def _results(row: Row) -> dict[str, list[str]]:
    """Split to `before → after`: successes in percent, and below them the mean scores, where scores say more.

    From the run's own summary where there is one, else of the last evaluation.
    """
    folder = row.folder.path if row.folder else row.found.folder.path if row.found.folder else None
    summary = _summary(folder)
    if summary is not None:
        graded = bool(summary.get("graded"))
        return {split["split"]: _lines(split["rates"], graded) for split in summary.get("splits", ())}
    splits = row.config.evaluation.splits
    status = row.status or row.found.status
    if status is not None and status.success is not None and splits:
        return {splits[-1]: [f"{100 * status.success:.1f}"]}
    return {}


def _lines(rates: Sequence[dict[str, Any]], graded: bool) -> list[str]:
    ends = [rates[0], rates[-1]] if len(rates) > 1 else list(rates)
    lines = [" → ".join(_figure(rate["rate"], 100) for rate in ends)]
    if graded:
        lines.append("score " + " → ".join(_figure(rate.get("mean_score"), 1) for rate in ends))
    return lines


def _figure(value: Any, factor: float) -> str:
    return f"{factor * value:.1f}" if isinstance(value, int | float) else "–"


def _summary(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    return open_attempt(folder, tables=False).summary

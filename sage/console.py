"""What the terminal shows: progress while a run works, and one table when it ends.

Fed with plain data only. On a terminal there is one live view; elsewhere (a file, a pipe, CI) plain lines,
one for each step and two for each evaluation, and where nothing was said for a minute one about what is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sage.records.activity import Now
from sage.records.clock import PHASES
from sage.records.ledger import TEACHER, Ledger
from sage.records.mlflow.store import experiment_of, view_hint
from sage.records.pulse import EveryMinute, duration, now_line
from sage.records.summary import Rate, Summary
from sage.records.trouble import bounds_lines, fallback_warning, retry_line, slip_line

PLAIN_WIDTH = 110


class View(Protocol):
    """Progress of one run. Use as a context manager; every method is cheap and never raises for bad data."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    def begin(self, what: str, total: int | None = None) -> None:
        """A phase starts (`evaluating valid_unseen`, `rollout`); `total` is its number of episodes."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more of the current phase are done; `note` is a few words (`12 won`)."""

    def end(self, note: str = "") -> None:
        """The current phase is over; `note` is its result."""

    def step(self, row: Mapping[str, Any]) -> None:
        """An optimizer step is done; `row` is its row of the steps table."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def hear(self, now: Now) -> None:
        """A heartbeat, in a thread of its own: what is done now."""


def open_view(
    title: str, steps: int, stream: IO[str] | None = None, now: Callable[[], Now | None] = lambda: None
) -> View:
    """The live view on a terminal, which asks `now` whenever it is drawn; plain lines elsewhere."""
    console = make_console(stream)
    if console.is_terminal:
        return LiveView(title, steps, console, now)
    return PlainView(title, steps, console)


def make_console(stream: IO[str] | None = None) -> Console:
    """A console that never guesses markup in game text, and a fixed width where nobody watches."""
    stream = stream or sys.stdout
    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH, no_color=True)


class PlainView:
    """Lines, for logs."""

    def __init__(self, title: str, steps: int, console: Console) -> None:
        self._title, self._steps, self._console = title, steps, console
        self._what, self._since = "", time.monotonic()
        self._total: int | None = None
        self._pulse = EveryMinute(self.say)

    def __enter__(self) -> Self:
        self.say(self._title)
        return self

    def __exit__(self, *exception: object) -> None:
        self._console.file.flush()

    def begin(self, what: str, total: int | None = None) -> None:
        self._what, self._since, self._total = what, time.monotonic(), total
        # The phases inside a step have no total; its own line says enough.
        if total is not None:
            self.say(f"{what}: {total} episodes ...")

    def advance(self, count: int = 1, note: str = "") -> None:
        pass

    def end(self, note: str = "") -> None:
        if self._total is not None:
            took = duration(time.monotonic() - self._since)
            self.say(f"{self._what}: {note or 'done'} ({took})")
        self._total = None

    def step(self, row: Mapping[str, Any]) -> None:
        self.say(f"step {row.get('step')}/{self._steps}: {step_line(row)}")

    def say(self, text: str) -> None:
        self._pulse.spoken()
        self._console.print(text, soft_wrap=True)
        self._console.file.flush()

    def hear(self, now: Now) -> None:
        self._pulse(now)


class LiveView:
    """Two bars (training steps, current phase), what is done now and the last step's figures, redrawn in
    place."""

    def __init__(
        self, title: str, steps: int, console: Console, now: Callable[[], Now | None] = lambda: None
    ) -> None:
        self._console, self._title, self._now = console, title, now
        self._bars = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
        )
        self._training = self._bars.add_task("training", total=steps, note="", visible=steps > 0, start=False)
        self._phase: TaskID | None = None
        self._what = ""
        self._line = ""
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._drop_phase()
        self._live.stop()

    def begin(self, what: str, total: int | None = None) -> None:
        self._drop_phase()
        self._what = what
        self._phase = self._bars.add_task(what, total=total, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        if self._phase is not None:
            self._bars.update(self._phase, advance=count, note=note)

    def end(self, note: str = "") -> None:
        if note:
            self.say(f"{self._what}: {note}")
        self._drop_phase()

    def step(self, row: Mapping[str, Any]) -> None:
        self._bars.start_task(self._training)
        self._bars.update(self._training, completed=row.get("step") or 0)
        self._line = step_line(row)

    def say(self, text: str) -> None:
        self._live.console.print(text)

    def hear(self, now: Now) -> None:
        """It is drawn all the time."""

    def _drop_phase(self) -> None:
        if self._phase is not None:
            self._bars.remove_task(self._phase)
            self._phase = None

    def _render(self) -> RenderableType:
        now = self._now()
        doing = Text(now_line(now) if now else "", style="dim", no_wrap=True, overflow="ellipsis")
        return Group(Text(self._title, style="bold cyan"), self._bars, doing, Text(self._line, style="dim"))


def step_line(row: Mapping[str, Any]) -> str:
    """One optimizer step in one line, from its row of the steps table; what is missing is left out."""
    parts = []
    if row.get("stepped") is False:
        parts.append("every turn skipped, no update")
    for name, column, form in (
        ("loss", "loss", "{:.4f}"),
        ("won", "success_rate", "{:.0%}"),
        ("Z", "z", "{:.2f}"),
        ("grad", "grad_norm", "{:.3g}"),
    ):
        if row.get(column) is not None:
            parts.append(f"{name} {form.format(row[column])}")
    shares = {name: row.get(f"share_{name}") for name in ("det_fail", "skip", "weak", "strong", "fallback")}
    told = [f"{name} {share:.0%}" for name, share in shares.items() if share]
    if told:
        parts.append("labels " + " ".join(told))
    if row.get("episodes_not_ok"):
        parts.append(f"{row['episodes_not_ok']} episodes not ok")
    if row.get("episodes_context_full"):
        parts.append(f"{row['episodes_context_full']} episodes cut by the context")
    seconds = [row.get(f"seconds_{phase}") or 0.0 for phase in PHASES]
    if any(seconds):
        parts.append(duration(sum(seconds)))
    return ", ".join(parts)


def _plain_table(first: str, others: Sequence[str], title: str | None = None) -> Table:
    """A table without edges: `first` heads its names, `others` their numbers."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def result_table(summary: Summary) -> Table:
    """Success before and after on every split, with Wilson 95 % intervals."""
    sources = sorted({source for split in summary.splits for source in split.sources})
    title = f"{summary.method} on {summary.env} ({' and '.join(sources) or 'no'} games), seed {summary.seed}"
    after = {split.after.step for split in summary.splits if split.after}
    trained = bool(after) or summary.steps > 0
    success = ["before", f"after {_steps(after)}".strip(), "points"] if trained else ["success"]
    table = _plain_table("split", ("n", *success, "not ok"), title)
    for split in summary.splits:
        cells = [_rate(split.before)]
        if trained:
            gain = split.gain_points
            cells += [_rate(split.after), "" if gain is None else f"{gain:+.1f}"]
        counts = dict.fromkeys(str(rate.n) for rate in (split.before, split.after) if rate)
        not_ok = sum(rate.not_ok for rate in split.rates)
        table.add_row(split.split, "/".join(counts), *cells, str(not_ok))
    return table


def context_table(summary: Summary) -> Table:
    """How many of each split's episodes the limit on their tokens cut, before and after."""
    table = _plain_table("cut by the context", ("before", "after"))
    for split in summary.splits:
        counts = [f"{r.context_full} of {r.n}" if r else "" for r in (split.before, split.after)]
        table.add_row(split.split, *counts)
    return table


def score_table(summary: Summary) -> Table:
    """Mean score before and after on every split, as the environment gives it and with negatives as 0."""
    headings = ("before", "after", "gain", "before, below 0 as 0", "after, below 0 as 0")
    table = _plain_table("mean score", headings)
    for split in summary.splits:
        before, after = split.before, split.after
        pair = [rate.mean_score if rate else None for rate in (before, after)]
        gain = "" if None in pair else f"{pair[1] - pair[0]:+.2f}"  # type: ignore[operator]
        clipped = [rate.mean_score_clipped if rate else None for rate in (before, after)]
        table.add_row(split.split, *map(_score, pair), gain, *map(_score, clipped))
    return table


def speed_table(summary: Summary) -> Table:
    """What each phase of training reached: tokens a second, memory, shares of the device's rates."""
    headings = ("time", "tokens/s", "peak GiB", "of matrix rate", "of memory rate")
    table = _plain_table("training, by phase", headings)
    for phase in summary.speed:
        shares = [None if s is None else f"{s:.0%}" for s in (phase.matrix_share, phase.memory_share)]
        rate, peak = phase.tokens_per_second, phase.peak_gib
        cells = (None if rate is None else f"{rate:,.0f}", None if peak is None else f"{peak:.2f}", *shares)
        table.add_row(phase.phase, duration(phase.seconds), *(cell or "" for cell in cells))
    return table


def summary_lines(summary: Summary) -> list[str]:
    """What stands below the table: labels, time, and what a reader must know to read it."""
    lines = (
        "Success in % with Wilson 95 % intervals: this checkpoint on games like these, not other seeds.",
        _sources_line(summary),
        _average_line(summary),
        _labels_line(summary),
        _training_line(summary),
        fallback_warning(summary.judged, summary.fallback),
        slip_line(summary),
        retry_line(summary),
        *_not_ok_lines(summary),
        context_line(summary) if any(summary.context_full) else "",
        _skipped_line(summary),
        token_line(summary.ledger) if summary.ledger is not None else "",
        _time_line(summary),
    )
    return [line for line in lines if line]


def _sources_line(summary: Summary) -> str:
    sources = {source for split in summary.splits for source in split.sources}
    if not sources - {"official"}:
        return ""
    return f"Games were {' and '.join(sorted(sources))}: not scores of the official benchmark."


def _average_line(summary: Summary) -> str:
    """Of more than two splits."""
    averages = (("before", summary.macro_rate("before")), ("after", summary.macro_rate("after")))
    told = ", ".join(f"{100 * rate:.1f} {when}" for when, rate in averages if rate is not None)
    if len(summary.splits) <= 2 or not told:
        return ""
    return f"Macro-average of the {len(summary.splits)} splits' success in %: {told}."


def _labels_line(summary: Summary) -> str:
    if not summary.label_shares:
        return ""
    shares = ", ".join(f"{label} {share:.1%}" for label, share in summary.label_shares.items())
    return f"Labels of {summary.labelled_turns:,} training turns: {shares}."


def _training_line(summary: Summary) -> str:
    train = summary.train
    return f"Training episodes: {train.won} of {train.n} won, {train.not_ok} not ok." if train else ""


def _not_ok_lines(summary: Summary) -> list[str]:
    if not summary.not_ok:
        return []
    return [
        *bounds_lines(summary),
        f"Not ok (environment or model trouble): {summary.not_ok} episodes, counted in no rate; "
        "`error` in episodes.parquet says why.",
    ]


def _skipped_line(summary: Summary) -> str:
    if not summary.skipped_steps:
        return ""
    return f"{summary.skipped_steps} of {summary.steps} steps made no update: every turn was skipped."


def _time_line(summary: Summary) -> str:
    total = sum(summary.seconds.values())
    if not total:
        return ""
    phases = [(name, summary.seconds.get(name, 0.0)) for name in PHASES]
    told = ", ".join(f"{name} {duration(s)} ({s / total:.0%})" for name, s in phases if s)
    return f"Time {duration(total)}: {told}."


def context_line(summary: Summary) -> str:
    """The warning that a limit on tokens, and not the agent alone, has decided episodes."""
    evaluated, trained = summary.context_full
    return (
        f"Warning: rollout.max_context cut {evaluated} evaluation and {trained} training episodes "
        "(`context_full`); they count as not won. Raise it, or say so beside the rates."
    )


def token_line(ledger: Ledger) -> str:
    """What training has cost in tokens; the teacher's are what methods are compared at."""
    parts = [f"{name} {count:,}" for name in TEACHER if (count := ledger.tokens[name])]
    teacher = f"{ledger.teacher:,} through the teacher" + (f" ({', '.join(parts)})" if parts else "")
    shown = ledger.tokens["demonstration"]
    beside = f" and {shown:,} of demonstrations" if shown else ""
    return f"Tokens of training: {ledger.tokens['student']:,} of the student{beside}, {teacher}."


def where_next(
    run_dir: Path, uri: str | None, problems: Sequence[str] = (), looks: Sequence[str] = ()
) -> list[str]:
    """Where to look next. `uri` is the resolved tracking URI, None where MLflow is off; `looks`: the lines of
    other loggers."""
    lines = [
        f"Records: {run_dir}",
        f"Analysis: python -m analysis summary {run_dir}",
    ]
    if uri is not None and not any(problem.startswith("Not in MLflow") for problem in problems):
        lines.append(f"MLflow: {view_hint(uri, experiment_of(run_dir))}")
    return [*lines, *looks, *problems]


def print_summary(
    summary: Summary,
    run_dir: Path,
    uri: str | None = None,
    problems: Sequence[str] = (),
    looks: Sequence[str] = (),
    stream: IO[str] | None = None,
) -> None:
    """The end of a run: table, notes, and where to look next."""
    console = make_console(stream)
    console.print()
    if summary.splits:
        console.print(result_table(summary))
        if summary.graded:
            console.print()
            console.print(score_table(summary))
        if summary.context_full[0]:
            console.print()
            console.print(context_table(summary))
    if summary.speed:
        console.print()
        console.print(speed_table(summary))
    for line in [*summary_lines(summary), *where_next(run_dir, uri, problems, looks)]:
        console.print(line, soft_wrap=True)


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return ""
    if rate.rate is None:
        return "none ok"
    low, high = rate.interval
    return f"{100 * rate.rate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _steps(steps: set[int]) -> str:
    """`64 steps`, or nothing where the splits were last evaluated at different steps."""
    return f"{next(iter(steps))} steps" if len(steps) == 1 else ""

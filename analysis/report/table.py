"""A table of the page."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis import render
from analysis.report.words import words

LONG = 28
"""A text cell longer than this may wrap."""


CONTEXT = (
    "env",
    "source",
    "split",
    "metric",
    "average",
    "baseline",
    "scope",
    "by",
    "group",
    "horizon",
    "kind",
    "estimand",
    "family",
    "games",
    "repeats",
    "episodes_not_ok",
    "episodes_context_full",
    "runs_unfinished",
    "games_left_out",
    "retest_is_bound",
)


@dataclass(frozen=True)
class Column:
    """`words` are its heading, `code` is what files and formulas call it; numbers stand at the `right`."""

    code: str
    words: str
    right: bool


@dataclass(frozen=True)
class Cell:
    """`kind` is num, words (a long text, which may wrap) or nothing."""

    text: str
    kind: str


@dataclass(frozen=True)
class Table:
    """A table of the page; `note` says what all rows share."""

    columns: list[Column]
    rows: list[list[Cell]]
    note: str


def as_table(frame: pd.DataFrame) -> Table:
    """A frame for the page. To fit a screen, columns without a single value are left out, and columns of
    `CONTEXT` with one value for all rows are said once below; bounds share a column. The CSV beside the page
    has all of them."""
    same = _said_once(frame)
    blank = frame.isna() | frame.eq("")
    empty = [name for name in frame if blank[name].all() and name not in same]
    note = ", ".join(f"{words(name)} {value}" for name, value in same.items() if value != "all")
    frame, right = render.with_intervals(frame.drop(columns=[*same, *empty]))
    header, rows = render.cells_of(frame)
    columns = [Column(name, words(name), r) for name, r in zip(header, right, strict=True)]
    cells = [[Cell(value, _kind(r, value)) for value, r in zip(row, right, strict=True)] for row in rows]
    return Table(columns, cells, note)


def _said_once(frame: pd.DataFrame) -> dict[str, str]:
    """Columns of `CONTEXT` with one value in all of several rows, and that value."""
    alike = [name for name in CONTEXT if name in frame and frame[name].nunique(dropna=False) == 1]
    return {name: render.shown(frame[name].iloc[0], name) for name in alike} if len(frame) > 1 else {}


def _kind(right: bool, value: str) -> str:
    if right:
        return "num"
    return "words" if len(value) > LONG else ""

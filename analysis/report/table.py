"""A table of the page."""

from __future__ import annotations

import html

import pandas as pd

from analysis import render

WORDS = 28
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


def table_html(frame: pd.DataFrame) -> str:
    """A table in a box of its own that scrolls sideways on a narrow screen.

    To fit a screen, columns without a single value are left out, and columns of `CONTEXT` with one value for
    all rows are said once below; bounds share a column. The CSV beside the page has all of them.
    """
    same = _said_once(frame)
    empty = [name for name in frame if len(frame) and frame[name].isna().all() and name not in same]
    note = ", ".join(f"{name} {value}" for name, value in same.items() if value != "all")
    frame = frame.drop(columns=[*same, *empty])
    frame, right = render.with_intervals(frame)
    header, rows = render.cells_of(frame)
    head = "".join(f"<th{_class(r)}>{html.escape(n)}</th>" for n, r in zip(header, right, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{_class(r, v)}>{html.escape(v)}</td>" for v, r in zip(row, right, strict=True))
        + "</tr>"
        for row in rows
    )
    below = f'<p class="same">all rows: {html.escape(note)}</p>' if note else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{below}'
    )


def _said_once(frame: pd.DataFrame) -> dict[str, str]:
    """Columns of `CONTEXT` with one value in all of several rows, and that value."""
    alike = [name for name in CONTEXT if name in frame and frame[name].nunique(dropna=False) == 1]
    return {name: render.shown(frame[name].iloc[0], name) for name in alike} if len(frame) > 1 else {}


def _class(right: bool, value: str = "") -> str:
    if right:
        return ' class="num"'
    return ' class="words"' if len(value) > WORDS else ""

"""Filters that find turns, as data: a page in one file and the server evaluate the same conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FILTERS: dict[str, tuple[str, dict[str, list[Any]]]] = {
    "skipped_harmful": ("skipped and harmful", {"label": ["SKIP", "NEVER"], "oracle": ["harm"]}),
    "strong_progress": ("STRONG and progress", {"label": ["STRONG"], "oracle": ["progress"]}),
    "fallback": ("FALLBACK", {"label": ["FALLBACK"]}),
    "format": ("format failures", {"failure": ["empty", "unparsed", "schema"]}),
    "slip": ("failed by format alone", {"format_slip": [True]}),
    "no_effect": ("nothing happened", {"failure": ["no_effect"]}),
    "truncated": ("answer cut", {"truncated": [True]}),
    "harm": ("harmful", {"oracle": ["harm"]}),
    "progress": ("progress", {"oracle": ["progress"]}),
    "strong": ("STRONG", {"label": ["STRONG"]}),
    "weak": ("WEAK", {"label": ["WEAK"]}),
    "skip": ("SKIP", {"label": ["SKIP"]}),
    "det_fail": ("DET_FAIL", {"label": ["DET_FAIL"]}),
    "won": ("in an episode that was won", {"won": [True]}),
    "lost": ("in an episode that was not won", {"won": [False]}),
    "training": ("in training", {"phase": ["train"]}),
    "evaluation": ("in evaluation", {"phase": ["eval"]}),
}
"""Name -> (what a page calls it, column -> the values that pass). Filters that are chosen together must all
let a turn through."""


def condition(names: Sequence[str]) -> dict[str, list[Any]]:
    """Column -> values that pass all of the filters. Raises KeyError for a filter that there is not."""
    wanted: dict[str, list[Any]] = {}
    for name in names:
        for column, values in FILTERS[name][1].items():
            wanted[column] = [v for v in values if v in wanted.get(column, values)]
    return wanted


def as_data() -> list[dict[str, Any]]:
    """For a page."""
    return [{"name": name, "title": title, "where": where} for name, (title, where) in FILTERS.items()]

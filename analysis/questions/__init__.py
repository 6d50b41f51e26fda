"""The questions that can be asked of records, one file each: its text, its options, its tables, and its
section in the report.

A file here has an `ASKED` (`analysis.questions.asked`), and its name in `NAMES`; the commands of `python -m
analysis` and the report's sections are read from that one list. It imports nothing heavy at its top, so that
`--help` stays fast. Where the statistics of a question are long they are a module of `analysis/`.
"""

from __future__ import annotations

from importlib import import_module

from analysis.questions.asked import Asked

NAMES = (
    "summary",
    "compare",
    "pairs",
    "power",
    "variance",
    "agreement",
    "rates",
    "cost",
    "skipped",
    "controls",
    "sweep",
    "published",
    "plan",
    "report",
    "provenance",
)
"""In the order of `python -m analysis --help`."""


def every() -> dict[str, Asked]:
    """All questions by name."""
    return {name: import_module(f"analysis.questions.{name}").ASKED for name in NAMES}

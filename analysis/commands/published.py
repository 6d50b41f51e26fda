"""`published`: printed tables under the magnifier."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options
from analysis.errors import Refusal

TEXT = """\
Printed tables under the magnifier: impossible percentages, what a difference is worth, duplicated rows.

Reads a CSV with one printed number per row: table, student, teacher, method, benchmark, split, metric, value,
n_episodes (docs/analysis.md). Prints the percentages that no whole number of episodes gives (GRIM) and the n
that would fit, every printed difference to the baseline with its interval and p value, whether averages are
the mean of their parts, and rows that print the same numbers. --own RECORDS holds our own runs, printed as
percentages, against the same checks."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "published", run, TEXT, inputs=False, choice=False)
    parser.add_argument("csv", nargs="?", metavar="CSV", help="the printed numbers")
    parser.add_argument("--own", nargs="+", metavar="INPUT", help="records of our own in the place of a CSV")
    parser.add_argument(
        "--baseline", help="method that the others are compared with (default: opd, where it is there)"
    )
    parser.add_argument(
        "--method", default="sage_opd", help="method whose claims are judged (default sage_opd)"
    )


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.published import tables, to_published

    if (args.csv is None) == (args.own is None):
        raise Refusal("Name either a CSV of printed numbers or --own with records.")
    if args.csv is not None:
        return tables(args.csv, args.baseline, args.method)
    from analysis.load import load
    from analysis.summary import per_run

    records = load(args.own)
    options.note(records)
    return tables(to_published(per_run(records)), args.baseline, args.method)

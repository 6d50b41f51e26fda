"""`published`: printed tables under the magnifier."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.errors import Refusal
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
Printed tables under the magnifier: impossible percentages, what a difference is worth, duplicated rows.

Reads a CSV with one printed number per row: table, student, teacher, method, benchmark, split, metric, value,
n_episodes (docs/reference/analysis.md). Prints the percentages that no whole number of episodes gives (GRIM)
and the n that would fit, every difference to the baseline with its interval and p value, whether averages are
the mean of their parts, and rows that print the same numbers. --own RECORDS holds our own runs, printed as
percentages, against the same checks."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument("csv", nargs="?", metavar="CSV", help="the printed numbers")
    parser.add_argument("--own", nargs="+", metavar="INPUT", help="records of our own in the place of a CSV")
    parser.add_argument(
        "--baseline", help="method that the others are compared with (default: opd, where it is there)"
    )
    parser.add_argument(
        "--method", default="sage_opd", help="method whose claims are judged (default sage_opd)"
    )


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.published import tables as answer
    from analysis.published import to_published

    if (args.csv is None) == (args.own is None):
        raise Refusal("Name either a CSV of printed numbers or --own with records.")
    if args.csv is not None:
        return answer(args.csv, args.baseline, args.method, args.level)
    from analysis.load import load
    from analysis.summary import per_run

    records = load(args.own)
    options.note(records)
    return answer(to_published(per_run(records)), args.baseline, args.method, args.level)


def section(part: Section, records: Records, brief: Brief) -> None:
    """Printed tables."""
    from analysis.published import tables as answer

    if not brief.published:
        return
    found = answer(brief.published, brief.question.baseline, level=brief.question.level)
    part.say("Percentages that no whole number of episodes gives, and what each printed difference is worth.")
    part.table("published_impossible", found["impossible"], "Impossible percentages", folded=True)
    part.table("published_sizes", found["sizes"], "Number of episodes stated, and the one that fits best")
    if "claims" in found:
        part.table("published_claim_lines", found["claim_lines"], "What each claim is worth", folded=True)
        part.table("published_claims", found["claims"], "Numbers of the claims", folded=True)
    part.table("published_duplicates", found["duplicates"], "Rows that print the same numbers", folded=True)


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    inputs=False,
    choice=False,
    title="Printed tables",
    section=section,
    rank=90,
)

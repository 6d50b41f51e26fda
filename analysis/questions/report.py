"""`report`: everything as one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.question import Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

TEXT = """\
Everything as one self-contained HTML file, with Markdown, LaTeX tables and CSV beside it.

Plots: effects, learning curves, labels over training and turn position, reliability, variance, power,
performance profile. A trajectory reader shows single episodes turn by turn. With --plan, what was
pre-registered stands apart from what was explored. The same records, options and --time give the
same files, byte for byte."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument("--baseline", help="method to compare with (needed where there is more than one)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--title", default="Report", help="title of the page")
    parser.add_argument("--time", default="", help="time stamp printed in the report (default: none)")
    parser.add_argument("--plan", help="conf/plan/<name>.yaml")
    parser.add_argument("--key", help="setting of a sweep among the records (as --key of sweep)")
    parser.add_argument("--published", metavar="CSV", help="also check these printed tables")
    options.average(parser)
    options.design(parser)
    options.bootstrap(parser, 10_000)


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.plan import read_plan
    from analysis.report import Brief, write_report

    return write_report(
        options.records(args, "turns", "steps"),
        Path(args.out),
        Brief(
            question=Question.of(args),
            title=args.title,
            time=args.time,
            plan=read_plan(args.plan) if args.plan else None,
            key=args.key,
            published=args.published,
        ),
    )


ASKED = Asked(text=TEXT, options=own_options, tables=tables)

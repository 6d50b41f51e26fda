"""`report`: everything as one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from analysis.commands import options

TEXT = """\
Everything as one self-contained HTML file, with Markdown, LaTeX tables and CSV beside it.

Plots: effects, learning curves, labels over training and turn position, reliability, variance, power,
performance profile. A trajectory reader shows single episodes turn by turn. With --plan, what was
pre-registered stands apart from what was explored. The same records, options and --time give the
same files, byte for byte."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "report", run, TEXT)
    parser.add_argument("--baseline", required=True, help="method to compare with")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--title", default="Report", help="title of the page")
    parser.add_argument("--time", default="", help="time stamp printed in the report (default: none)")
    parser.add_argument("--plan", help="conf/plan/<name>.yaml")
    parser.add_argument("--key", help="setting of a sweep among the records (as --key of thresholds)")
    parser.add_argument("--published", metavar="CSV", help="also check these printed tables")
    options.average(parser)
    options.design(parser)
    options.bootstrap(parser, 10_000)


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.report import write_report

    return write_report(
        options.records(args, "turns", "steps"),
        Path(args.out),
        baseline=args.baseline,
        time=args.time,
        plan=args.plan,
        key=args.key,
        published=args.published,
        average=args.average,
        title=args.title,
        **options.resampled(args),
    )

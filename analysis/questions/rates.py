"""`rates`: how often the judge said each word."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.question import Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

TEXT = """\
How often the judge said SKIP, WEAK and STRONG, overall and by turn position.

--write DIR/intervention/NAME.yaml makes them an option: python -m sage --config-dir DIR intervention=NAME
draws labels at these rates without a query, the cheap control for a judge."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument("--write", type=Path, help="YAML file to write, of one method and environment")


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.rates import tables as answer
    from analysis.rates import write_option

    found = answer(options.records(args, "turns"), Question.of(args))
    if args.write:
        write_option(found["rates"], args.write)
        print(f"Wrote {args.write}.", file=sys.stderr)
    return found


ASKED = Asked(text=TEXT, options=own_options, tables=tables, choice=False)

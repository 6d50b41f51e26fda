"""`rates`: how often the judge said each word."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from analysis.commands import options

TEXT = """\
How often the judge said SKIP, WEAK and STRONG, overall and by turn position.

--write DIR/intervention/NAME.yaml makes them an option: python -m sage --config-dir DIR intervention=NAME
draws labels at these rates without a query, the cheap control for a judge."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "rates", run, TEXT, choice=False)
    parser.add_argument("--write", type=Path, help="YAML file to write, of one method and environment")


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.rates import tables, write_option

    found = tables(options.records(args, "turns"), **options.choice(args))
    if args.write:
        write_option(found["rates"], args.write)
        print(f"Wrote {args.write}.", file=sys.stderr)
    return found

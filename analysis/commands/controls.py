"""`controls`: the falsification table."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
The falsification table: each claim against the control that could bring it down, one verdict line each.

Judge against random, inverted, oracle, matched scale, feedback only, shuffled confidence, a second rollout
and a learned rule, by preset name. Holm over all claims that were run on a split. Claims whose arms are
missing are listed as not run. --average splits holds them against the macro-average over an environment's
splits."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "controls", run, TEXT)
    options.average(parser)
    options.design(parser)
    options.bootstrap(parser, 10_000)
    parser.add_argument(
        "--margin", type=options.margin, default=0.05, help="loss that still counts as as-well-as"
    )


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.controls import tables

    return tables(
        options.records(args),
        margin=args.margin,
        average=args.average,
        **options.resampled(args),
    )

"""`variance`: where the spread comes from."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
Where the spread comes from: training run, game, run × game, decoding noise.

Crossed decomposition per method, env and split, with intervals; the share of the mean's variance that each
part makes and what would remove it; the standard error with twice or endlessly many runs, games or repeats;
and how much one checkpoint's success rate moves when the same games are played again. Decoding
noise needs repeats of a game. Then the same for the difference of each method to --baseline, in which games
cancel: what is left of them is how much the effect differs from game to game."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "variance", run, TEXT)
    parser.add_argument(
        "--baseline", help="decompose differences to this method (default: opd, or the first of two methods)"
    )
    options.bootstrap(parser, 4000)


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.variance import tables

    return tables(
        options.records(args),
        baseline=args.baseline,
        **options.resampled(args),
    )

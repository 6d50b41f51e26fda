"""`compare`: each method against a baseline."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
Each method against a baseline: is the difference real, and could we have seen it?

Interval (low, high): calibrated two-way bootstrap; runs and games are resampled, games jointly for both
methods. p: the test of the --design; the run is the unit. independent: Welch's t on run means. paired: t on
the differences of runs that share a seed. blocked: all methods together, a block for each seed. What makes
two runs a pair is in run.json and checked. p_permutation: exact relabelling of runs, from 5 runs a side on,
or flips of signs, from 6 pairs on. pair_correlation: how alike runs of one seed end; p_other,
detectable_other: what the other design would have shown (that decides nothing). p_holm for the declared
--family, q_bh (false discovery rate) for everything else, p_dunnett for both in a blocked design.
detectable: the true difference that this number of runs with this spread finds with power 0.8; read it
before reading "not shown" as "no effect".

--metric score compares mean scores by the same procedures; --average splits compares the macro-average over
an environment's splits, in which each split counts the same."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "compare", run, TEXT)
    parser.add_argument("--baseline", required=True, help="method to compare with")
    parser.add_argument("--family", help="methods of the declared family, comma-separated (Holm over them)")
    parser.add_argument(
        "--margin", type=options.margin, help="equivalence margin in the metric's unit, e.g. 0.05 (TOST)"
    )
    options.average(parser)
    options.design(parser)
    options.bootstrap(parser, 10_000)
    parser.add_argument(
        "--checkpoints", action="store_true", help="also McNemar for every pair of runs with one seed"
    )


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.compare import tables

    return tables(
        options.records(args),
        args.baseline,
        average=args.average,
        family=options.names(args.family),
        margin=args.margin,
        paired_checkpoints=args.checkpoints,
        **options.resampled(args),
    )

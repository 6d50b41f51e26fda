"""`pairs`: how alike two methods end where they share a seed."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options
from analysis.errors import Refusal

TEXT = """\
Runs that share a seed are pairs: how alike do two methods end, by seed, split and step?

correlations: of the run means of pairs, with its interval; that is what `power --correlation` and a plan's
assumptions take. agreement: share of games with the same outcome, beside that of runs with other seeds;
same_text: share of games in which both gave the same answers, word for word; no_pair: what two runs of one
seed do not share and should (student, games, random streams)."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "pairs", run, TEXT, choice=False)
    parser.add_argument("--methods", required=True, help="the two methods, comma-separated")


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.pair_agreement import tables

    names = options.names(args.methods) or []
    if len(names) != 2:
        raise Refusal(f"--methods takes two methods, as in opd,sage_opd, not {args.methods!r}.")
    only = {name: getattr(args, name) for name in ("env", "split", "source")}
    first, second = names
    return tables(options.records(args, "turns"), first, second, args.level, **only)

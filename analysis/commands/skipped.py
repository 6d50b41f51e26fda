"""`skipped`: the turns that the rule skipped."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
The skipped turns: which should not have been, what they are like, what came after them.

errors: wrong decisions by expert distance, trajectory length, turn position, error type and task type.
differences: standardised differences between supervised and skipped turns. aftermath: progress in the turns
after a wrongly skipped turn against matched supervised ones. weighted: means undone of the selection by
logged propensities (SNIPS, AIPW), refused with a reason where the rule leaves no overlap."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "skipped", run, TEXT, choice=False)
    options.bootstrap(parser, 2000)
    parser.add_argument("--horizon", type=int, default=3, help="turns after the skipped one (default 3)")


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.skipped import tables

    records = options.records(args, "turns")
    return tables(records, args.level, args.draws, args.seed, args.horizon, **options.choice(args))

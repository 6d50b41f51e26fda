"""`summary`: how each method did."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
How each method did: mean, spread over runs, intervals.

One row per method, environment and split: runs (and runs that did not finish), episodes that are not ok, the
mean over games (mean_micro) and over task types (mean_macro), the sd over runs and Student's interval over
runs. Where an environment grades episodes, the mean score with its interval over runs stands beside it, and
where scores can be negative also the mean of the scores clipped at 0. Then the macro-average over splits, the
same per task type, and each run with its Wilson interval."""


def add(commands: Any) -> None:
    """Declare the command."""
    options.command(commands, "summary", run, TEXT)


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.summary import tables

    return tables(options.records(args), args.level, args.metric, **options.choice(args))

"""`thresholds`: a sweep over one setting."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options
from analysis.errors import Refusal

TEXT = """\
A sweep over one setting: which value is best, how much the winner flatters itself, is it confirmed?

--key names the setting (a config key such as confidence.threshold, or a CSV column). selection_bias is what
choosing the best of all settings adds to its score; corrected has it taken off. --confirm RECORDS --baseline
METHOD compares the winner on runs with other seeds and other games; shared ones are refused."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "thresholds", run, TEXT)
    parser.add_argument("--key", required=True, help="the setting that was swept")
    parser.add_argument("--confirm", nargs="+", metavar="INPUT", help="records of the confirmation runs")
    parser.add_argument("--baseline", help="baseline of the confirmation")
    options.bootstrap(parser, 4000)


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.load import load
    from analysis.thresholds import confirmation, tables

    args.vary = [*args.vary, args.key]
    records = options.records(args)
    found = tables(
        records,
        args.key,
        **options.resampled(args),
    )
    if args.confirm:
        if not args.baseline:
            raise Refusal("A confirmation needs --baseline.")
        fresh = load(args.confirm, vary=args.vary)
        options.note(fresh)
        found["confirmation"] = confirmation(records, fresh, args.key, args.baseline, args.metric)
    return found

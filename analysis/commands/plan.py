"""`plan`: pre-registration."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from analysis.commands import options
from analysis.errors import Refusal

TEXT = """\
Pre-registration: freeze a plan before the runs, check afterwards whether a result is confirmatory.

freeze writes a line into the ledger beside the runs (--runs, default runs/) and <plan>.frozen.json with the
plan's hash, the commit and the time, once; the ledger's line is what counts. check prints what the plan can
see, and with --records every condition of each hypothesis, with a verdict, what was found and the way out;
then it tests the hypotheses as planned. Runs carry the hash in provenance.json (plan_sha256)."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "plan", run, TEXT, inputs=False, choice=False)
    parser.add_argument("action", choices=("freeze", "check"))
    parser.add_argument("plan", metavar="PLAN", help="conf/plan/<name>.yaml")
    parser.add_argument("--records", nargs="+", metavar="INPUT", help="runs to hold against the plan")
    parser.add_argument(
        "--runs",
        metavar="DIR",
        default="runs",
        help="folder of the runs that the freeze is for (default runs)",
    )


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis import plan

    if args.action == "freeze":
        return {
            "frozen": plan.freeze(args.plan, args.runs),
            "power": plan.detectables(plan.read_plan(args.plan)),
        }
    planned = plan.read_plan(args.plan)
    found = {"power": plan.detectables(planned)}
    if args.records:
        from analysis.load import load
        from analysis.plan_check import check
        from analysis.plan_test import confirmatory

        records = load(args.records, tables=("episodes", "turns", "steps"))
        options.note(records)
        found["conditions"] = check(planned, records)
        try:
            found["confirmatory"] = confirmatory(planned, records)
        except Refusal as refusal:
            print(f"note: the hypotheses cannot be tested: {refusal}", file=sys.stderr)
    return found

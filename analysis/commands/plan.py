"""`plan`: pre-registration."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
Pre-registration: freeze a plan before the runs, check afterwards whether a result is confirmatory.

freeze writes <plan>.frozen.json with the plan's hash, the commit and the time, once. check prints what the
plan can see, and with --records whether the runs carry the hash, started after the freeze and are complete;
then it tests the hypotheses as planned. Runs carry the hash in provenance.json
(plan_sha256)."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "plan", run, TEXT, inputs=False, choice=False)
    parser.add_argument("action", choices=("freeze", "check"))
    parser.add_argument("plan", metavar="PLAN", help="conf/plan/<name>.yaml")
    parser.add_argument("--records", nargs="+", metavar="INPUT", help="runs to hold against the plan")
    parser.add_argument("--time", help="time stamp of the freeze (default: now)")


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis import plan

    if args.action == "freeze":
        return {
            "frozen": plan.freeze(args.plan, args.time),
            "power": plan.detectables(plan.read_plan(args.plan)),
        }
    planned = plan.read_plan(args.plan)
    found = {"power": plan.detectables(planned)}
    if args.records:
        from analysis.load import load

        records = load(args.records)
        options.note(records)
        found["conditions"] = plan.check(planned, records)
        found["confirmatory"] = plan.confirmatory(planned, records)
    return found

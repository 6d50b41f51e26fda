"""`plan`: pre-registration."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from analysis.errors import Refusal
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    from analysis.plan import Plan
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
Pre-registration: freeze a plan before the runs, check afterwards whether a result is confirmatory.

freeze writes a line into the ledger beside the runs (--runs, default runs/) and <plan>.frozen.json with the
plan's hash, the commit and the time, once; the ledger's line is what counts. check prints what the plan can
see, and with --records every condition of each hypothesis, with a verdict, what was found and the way out;
then it tests the hypotheses as planned. Runs carry the hash in provenance.json (plan_sha256).

look holds the runs in --runs against the plan while the study runs, and writes the look into their ledger:
at the numbers of seeds that the plan's looks name it decides whether the study goes on (`python -m sage -m
study=… launch.until=decided` does that by itself); at any other the result is exploratory from there on."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument("action", choices=("freeze", "look", "check"))
    parser.add_argument("plan", metavar="PLAN", help="conf/plan/<name>.yaml")
    parser.add_argument("--records", nargs="+", metavar="INPUT", help="runs to hold against the plan")
    parser.add_argument(
        "--runs",
        metavar="DIR",
        default="runs",
        help="folder of the runs that the freeze or the look is for (default runs)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="look at the plan's first N seeds; refused where a run of theirs is missing",
    )


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis import plan

    if args.action == "freeze":
        frozen = {"frozen": plan.freeze(args.plan, args.runs)}
        return frozen | plan.foreseen(plan.read_plan(args.plan))
    planned = plan.read_plan(args.plan)
    if args.action == "look":
        return _look(planned, args)
    found = plan.foreseen(planned)
    if args.records:
        from analysis.load import load
        from analysis.plan_check import check, confirmatory

        records = load(args.records, tables=("episodes", "turns", "steps"))
        options.note(records)
        found["conditions"] = check(planned, records)
        try:
            found["confirmatory"] = confirmatory(planned, records)
        except Refusal as refusal:
            print(f"note: the hypotheses cannot be tested: {refusal}", file=sys.stderr)
    return found


def _look(planned: Plan, args: argparse.Namespace) -> Tables:
    from analysis.load import load
    from analysis.plan_look import look

    records = load([args.runs], tables=("episodes",))
    options.note(records)
    seen, sentence = look(planned, records, args.runs, args.seeds)
    print(sentence, file=sys.stdout if args.format == "text" else sys.stderr)
    return {"look": seen}


def section(part: Section, records: Records, brief: Brief) -> None:
    """Pre-registered hypotheses."""
    from analysis.compare import DRAWS
    from analysis.plan import foreseen, frozen_path
    from analysis.plan_check import check, confirmatory

    if brief.plan is None:
        return
    conditions = check(brief.plan, records)
    met = bool(conditions["met"].all())
    part.tag = "confirmatory" if met else "exploratory"
    part.say(
        f"{brief.plan.content['title']}. Plan {brief.plan.path.name}, hash {brief.plan.sha256[:12]}, "
        f"{'frozen' if frozen_path(brief.plan.path).exists() else 'not frozen'}. Estimand: "
        f"{brief.plan.content['estimand']}. A result is confirmatory only if every condition below is met."
    )
    try:
        result = confirmatory(brief.plan, records, brief.question.draws or DRAWS, brief.question.seed)
        first = ["hypothesis", "env", "split", "verdict", "status"]
        result = result[[*first, *(name for name in result if name not in first)]]
        part.table("plan_hypotheses", result, "Hypotheses as planned, Holm over all of them")
    except Refusal as refusal:
        part.say(f"The hypotheses cannot be tested: {refusal}", "refusal")
    part.table("plan_conditions", conditions, "Conditions of a confirmatory result", folded=met)
    seen = foreseen(brief.plan)
    part.table("plan_power", seen["power"], "What the plan can see under its own assumptions")
    if "looks" in seen:
        part.table("plan_looks", seen["looks"], "When the plan looks, and the nominal level of each look")


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    inputs=False,
    choice=False,
    title="Pre-registered hypotheses",
    section=section,
    rank=10,
)

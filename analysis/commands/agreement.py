"""`agreement`: the judge against the oracle, or against another judge."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
Judge against oracle, or judge against judge: confusion, kappa, MCC, AUROC of confidence, calibration.

Right label by the environment's expert: progress SKIP, no effect WEAK, harm STRONG. Per method and env, by
task type, turn position and failure kind. Intervals resample whole episodes; kappa_runs_low and _high are
Student's over the runs' kappas. Read kappa beside the prevalence: it falls with it. --other RECORDS compares
two judges on the turns that both have judged."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = options.command(commands, "agreement", run, TEXT, choice=False)
    options.bootstrap(parser, 2000)
    parser.add_argument(
        "--cluster", choices=("episode", "run", "game"), default="episode", help="what is resampled"
    )
    parser.add_argument("--other", nargs="+", metavar="INPUT", help="records of a second judge")


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.agreement import filtered, judge_against_judge, tables

    records, choice = options.records(args, "turns"), options.choice(args)
    if not args.other:
        return tables(records, args.level, args.draws, args.cluster, args.seed, **choice)
    from analysis.load import load

    other = load(args.other, tables=("episodes", "turns"))
    options.note(other)
    both = judge_against_judge(
        filtered(records, **choice), filtered(other, **choice), args.level, args.draws, args.seed
    )
    return {"judges": both}

"""`agreement`: the judge against the oracle, or against another judge."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.question import Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
Judge against oracle, or judge against judge: confusion, kappa, MCC, AUROC of confidence, calibration.

Right label by the environment's expert: progress SKIP, no effect WEAK, harm STRONG. Per method and env, by
task type, turn position and failure kind. Intervals resample whole episodes; kappa_runs_low and _high are
Student's over the runs' kappas. Read kappa beside the prevalence: it falls with it. --other RECORDS compares
two judges on the turns that both have judged."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    options.bootstrap(parser, 2000)
    parser.add_argument(
        "--cluster", choices=("episode", "run", "game"), default="episode", help="what is resampled"
    )
    parser.add_argument("--other", nargs="+", metavar="INPUT", help="records of a second judge")


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.agreement import filtered, judge_against_judge
    from analysis.agreement import tables as answer

    records, question = options.records(args, "turns"), Question.of(args)
    if not args.other:
        return answer(records, question, args.cluster)
    from analysis.load import load

    other = load(args.other, tables=("episodes", "turns"))
    options.note(other)
    both = judge_against_judge(filtered(records, question), filtered(other, question), question)
    return {"judges": both}


AGREEMENT = [
    "method",
    "env",
    "scope",
    "by",
    "group",
    "turns",
    "prevalence",
    "agreement",
    "kappa",
    "kappa_low",
    "kappa_high",
    "kappa_runs_low",
    "kappa_runs_high",
    "kappa_intervening",
    "mcc",
    "sensitivity",
    "specificity",
    "auroc_confidence_right",
    "calibration_error",
]
"""Columns that the report shows."""


def section(part: Section, records: Records, brief: Brief) -> None:
    """The judge against the oracle."""
    from analysis import figures
    from analysis.agreement import tables as answer

    found = answer(records, brief.question.of_training())
    part.say(
        "Right label by the environment's expert: progress SKIP, no effect WEAK, harm STRONG. Scope judge: "
        "turns on which the teacher was asked; rule: deterministic failures too. Kappa falls with the share "
        "of turns without progress at equal error rates, so read both. Intervals allow for turns of one "
        "episode being alike; kappa over runs: Student's interval over the runs' kappas. That of intervening "
        "asks only whether to intervene at all: fair for scope rule too, where a failure without effect "
        "counts as STRONG against WEAK."
    )
    columns = [name for name in AGREEMENT if name in found["agreement"]]
    main = found["agreement"]
    part.table("agreement", main.loc[main["by"] == "all", columns], "Agreement")
    title = "Decided (rows; deterministic failures count as STRONG) against right labels"
    part.table("confusion", found["confusion"], title)
    part.table(
        "agreement_groups",
        main.loc[main["by"] != "all", columns],
        "By task type, turn position and failure kind",
        folded=True,
    )
    if len(found["reliability"]):
        part.draw(
            "reliability",
            figures.reliability(found["reliability"]),
            "Is confidence a probability of the judge being right? On the dashed line it is. Bars: Wilson's "
            "interval at the effective number of turns, as turns of one episode are alike.",
        )
        part.table("reliability", found["reliability"], "Numbers of the reliability diagram", folded=True)
    part.draw(
        "labels",
        figures.label_shares(*(_choosing(found[name]) for name in ("labels_by_step", "labels_by_turn"))),
        "Labels over training and over turn positions, of the methods that choose turns.",
    )
    part.table("labels_by_step", found["labels_by_step"], "Label shares over training", folded=True)
    part.table("labels_by_turn", found["labels_by_turn"], "Label shares over turn positions", folded=True)


def _choosing(shares: pd.DataFrame) -> pd.DataFrame:
    """Without the methods that treat all turns alike."""
    alike = [name for name in ("ALWAYS", "NEVER") if name in shares]
    share = shares[alike].fillna(0).sum(axis=1)
    return shares[share.groupby([shares["method"], shares["env"]]).transform("min") < 1]


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    choice=False,
    title="The judge against the oracle",
    section=section,
    rank=60,
)

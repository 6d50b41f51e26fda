"""`controls`: the falsification table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.question import Question
from analysis.questions import options, values
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
The falsification table: each claim against the control that could bring it down, one verdict line each.

Judge against random, inverted, oracle, matched scale, feedback only, shuffled confidence, a second rollout
and a learned rule, by preset name. Holm over all claims that were run on a split. Claims whose arms are
missing are listed as not run. --average splits holds them against the macro-average over an environment's
splits."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    options.average(parser)
    options.design(parser)
    options.bootstrap(parser, 10_000)
    parser.add_argument(
        "--margin", type=values.margin, default=0.05, help="loss that still counts as as-well-as"
    )


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.controls import controls

    frame = controls(options.records(args), Question.of(args))
    return {"verdicts": frame[["verdict", "line"]], "controls": frame.drop(columns="line")}


def section(part: Section, records: Records, brief: Brief) -> None:
    """Controls: what could bring the claims down."""
    from analysis.controls import controls
    from analysis.errors import Refusal

    part.tag = "exploratory"
    frame = controls(records, brief.question)
    run = frame[frame["verdict"] != "not run"]
    if not len(run):
        raise Refusal("no claim has both of its methods in these records.")
    part.say(
        "One line per claim and split (or macro-average); p corrected by Holm over the claims that were run "
        "there. A claim “holds” only past that correction."
    )
    part.table("controls", run[["verdict", "line"]], "Verdicts")
    missing = sorted(set(frame.loc[frame["verdict"] == "not run", "claim"]) - set(run["claim"]))
    if missing:
        part.say("Not run: " + "; ".join(missing) + ".")
    part.table(
        "controls_full", frame.drop(columns="line"), "Numbers, with the claims that were not run", folded=True
    )


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    title="Controls: what could bring the claims down",
    section=section,
    rank=40,
)

"""`sweep`: a sweep over one setting."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.errors import Refusal
from analysis.question import Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
A sweep over one setting: which value is best, how much the winner flatters itself, is it confirmed?

--key names the setting (a config key such as confidence.threshold, or a CSV column). selection_bias is what
choosing the best of all settings adds to its score; corrected has it taken off. --confirm RECORDS --baseline
METHOD compares the winner on runs with other seeds and other games; shared ones are refused."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument("--key", required=True, help="the setting that was swept")
    parser.add_argument("--confirm", nargs="+", metavar="INPUT", help="records of the confirmation runs")
    parser.add_argument("--baseline", help="baseline of the confirmation")
    options.bootstrap(parser, 4000)


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.load import load
    from analysis.sweep import confirmation, sweep

    args.vary = [*args.vary, args.key]
    records, question = options.records(args), Question.of(args)
    found = {"sweep": sweep(records, args.key, question)}
    if args.confirm:
        if not args.baseline:
            raise Refusal("A confirmation needs --baseline.")
        fresh = load(args.confirm, vary=args.vary)
        options.note(fresh)
        found["confirmation"] = confirmation(records, fresh, args.key, question)
    return found


def section(part: Section, records: Records, brief: Brief) -> None:
    """The sweep."""
    from analysis import figures
    from analysis.sweep import sweep

    if not brief.key:
        return
    part.tag = "exploratory"
    frame = sweep(records, brief.key, brief.question.as_usual())
    part.say(
        "The best of many settings looks better than it is. selection_bias is what the choice adds; "
        "corrected has it taken off. Only fresh seeds and held-out games confirm a winner."
    )
    part.draw("sweep", figures.sweep(frame, brief.key), f"Objective over {brief.key}.")
    part.table("sweep", frame, "Settings")


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    former="thresholds",
    title="The sweep",
    section=section,
    rank=80,
)

"""`skipped`: the turns that the rule skipped."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.question import Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
The skipped turns: which should not have been, what they are like, what came after them.

errors: wrong decisions by expert distance, trajectory length, turn position, error type and task type.
differences: standardised differences between supervised and skipped turns. aftermath: progress in the turns
after a wrongly skipped turn against matched supervised ones. weighted: means undone of the selection by
logged propensities (SNIPS, AIPW), refused with a reason where the rule leaves no overlap."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    options.bootstrap(parser, 2000)
    parser.add_argument("--horizon", type=int, default=3, help="turns after the skipped one (default 3)")


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.skipped import tables as answer

    return answer(options.records(args, "turns"), Question.of(args), args.horizon)


def section(part: Section, records: Records, brief: Brief) -> None:
    """The skipped turns."""
    from analysis.skipped import tables as answer

    found = answer(records, brief.question.of_training())
    part.say(
        "Harmful turns are those that moved away from the goal, good ones those that came nearer. A label "
        "never acts inside its own episode, so what follows a skipped turn describes the errors that the "
        "judge lets pass; it is no effect of skipping."
    )
    errors = found["errors"]
    part.table("skipped_errors", errors[errors["by"] == "all"], "Wrong decisions")
    part.table(
        "skipped_errors_by",
        errors[errors["by"] != "all"],
        "By distance, length, position, error and task type",
        folded=True,
    )
    part.table(
        "skipped_differences",
        found["differences"],
        "Standardised differences, supervised minus skipped (|0.1| counts as alike)",
    )
    part.table(
        "skipped_aftermath",
        found["aftermath"],
        "Expert steps gained in the turns after a wrongly skipped turn, and after matched supervised ones",
    )
    part.table("skipped_weighted", found["weighted"], "Weighted by logged propensities", folded=True)


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    choice=False,
    title="The skipped turns",
    section=section,
    rank=70,
)

"""`summary`: how each method did."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.question import Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
How each method did: mean, spread over runs, intervals.

One row per method, environment and split: runs (and runs that did not finish), episodes that are not ok, the
mean over games (mean_micro) and over task types (mean_macro), the sd over runs and Student's interval over
runs. Where an environment grades episodes, the mean score with its interval over runs stands beside it, and
where scores can be negative also the mean of the scores clipped at 0. Then the macro-average over splits, the
same per task type, and each run with its Wilson interval."""


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.summary import tables as answer

    return answer(options.records(args), Question.of(args))


def section(part: Section, records: Records, brief: Brief) -> None:
    """Means, learning curves, profiles."""
    from analysis import figures
    from analysis.curves import learning_curve
    from analysis.profile import interquartile_means, profiles
    from analysis.summary import tables as answer

    question, palette = brief.question, brief.palette
    found = answer(records, question)
    part.say(
        "Means over the games of each run, then over runs, with Student's interval over runs; once with "
        "games weighed alike, once with task types. Runs that did not finish and episodes that say "
        "nothing about "
        "the agent are counted, never scored as losses."
    )
    if "score" in found["summary"] or question.metric.startswith("score"):
        part.say(
            "The score is the mean of the environment's own scores, with its interval over runs; clipped, "
            "negative scores are taken as 0."
        )
    part.table("summary", found["summary"], "Methods")
    if question.leave_out:
        count = len(question.leave_out)
        part.say(f"{count} named tasks do not count in this report, except in the next table.")
        part.table("summary_all_tasks", found["summary_all_tasks"], "Methods, all tasks")
    if "macro_average" in found:
        part.table(
            "macro_average",
            found["macro_average"],
            "Macro-average over the splits of an environment: each split counts the same",
            folded=question.average != "splits",
        )
    curves = learning_curve(records, question.metric)
    if curves["step"].nunique() > 1:
        part.draw(
            "learning_curves",
            figures.learning_curves(curves, palette, question.metric),
            "Evaluation over training, on the games that every evaluation played: mean over runs, band "
            "from the lowest to the highest run.",
        )
        part.table("learning_curves", curves, "Numbers of the learning curves", folded=True)
    if found["summary"]["runs"].max() > 1:
        part.draw(
            "profiles",
            figures.profiles(profiles(records, question.as_usual()), palette, question.metric),
            "Performance profile: share of run × task type means that reach τ; higher is better. Bands "
            "resample runs within task types and are for the eye only.",
        )
        means = interquartile_means(records, question)
        part.table("iqm", means, "Interquartile means of the rates", folded=True)
    part.table("per_task_type", found["per_task_type"], "By task type", folded=True)
    part.table(
        "per_run", found["per_run"], "Each run, with the Wilson interval of its checkpoint", folded=True
    )


ASKED = Asked(text=TEXT, tables=tables, title="What was measured", section=section, rank=20)

"""`pairs`: how alike two methods end where they share a seed."""

from __future__ import annotations

import argparse

from analysis.question import Question
from analysis.questions import options, values
from analysis.questions.asked import Asked, Tables

TEXT = """\
Runs that share a seed are pairs: how alike do two methods end, by seed, split and step?

correlations: of the run means of pairs, with its interval; that is what `power --correlation` and a plan's
assumptions take. agreement: share of games with the same outcome, beside that of runs with other seeds;
same_text: share of games in which both gave the same answers, word for word; no_pair: what two runs of one
seed do not share and should (student, games, random streams)."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument(
        "--methods", required=True, type=values.names, help="the two methods, comma-separated"
    )


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.pair_agreement import agreement, correlations, two_methods

    question = Question.of(args)
    two_methods(question)
    records = options.records(args, "turns")
    return {"correlations": correlations(records, question), "agreement": agreement(records, question)}


ASKED = Asked(text=TEXT, options=own_options, tables=tables, choice=False)

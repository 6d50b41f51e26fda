"""`cost`: what each method has cost, in tokens and in seconds."""

from __future__ import annotations

import argparse

from analysis.questions import options
from analysis.questions.asked import Asked, Tables

TEXT = """\
What each method has cost: student tokens, teacher tokens (scored, judged, played) and seconds by phase.

Means over runs. Train with trainer=equal_teacher_tokens to compare methods at one cost of the teacher."""


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.cost import tables as answer

    return answer(options.records(args, "steps"), args.env)


ASKED = Asked(text=TEXT, tables=tables, choice=False)

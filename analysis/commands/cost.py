"""`cost`: what each method has cost, in tokens and in seconds."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.commands import options

TEXT = """\
What each method has cost: student tokens, teacher tokens (scored, judged, played) and seconds by phase.

Means over runs. Train with trainer=equal_teacher_tokens to compare methods at one cost of the teacher."""


def add(commands: Any) -> None:
    """Declare the command."""
    options.command(commands, "cost", run, TEXT, choice=False)


def run(args: argparse.Namespace) -> options.Tables:
    """Answer it."""
    from analysis.cost import tables

    return tables(options.records(args, "steps"), args.env)

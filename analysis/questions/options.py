"""What commands share: where records come from, which episodes count, how tables are printed."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from analysis.question import AVERAGES, DESIGNS
from analysis.questions.asked import Asked
from analysis.questions.values import MAX_DRAWS, MIN_DRAWS, level, task_ids, whole

if TYPE_CHECKING:
    from analysis.records import Records

INPUTS = """\
INPUT is any number of
  runs/                     a directory with run directories (or one of them)
  episodes.csv              one row per played game: method, env, split, seed, task, won
                            (docs/reference/analysis.md)
  mlflow:EXPERIMENT@<URI>   an MLflow experiment; without @<URI> it takes MLFLOW_TRACKING_URI
"""


def declare(commands: Any, name: str, asked: Asked) -> None:
    """Declare the command of a question: its help, its records, which evaluations count, how its tables are
    printed, and its own options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=asked.text.strip().splitlines()[0],
        description=asked.text,
        epilog=INPUTS if asked.inputs else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(asked=asked)
    if asked.inputs:
        _input_options(parser)
    if asked.choice:
        _choice_options(parser)
    parser.add_argument("--level", type=level, default=0.95, help="confidence level (default 0.95)")
    parser.add_argument(
        "--format",
        choices=("text", "csv", "md", "tex", "json"),
        default="text",
        help="how tables are printed",
    )
    parser.add_argument("--table", help="print only this table of the command")
    parser.add_argument(
        "--csv-dir", metavar="DIR", help="also write every table there as CSV, with all digits"
    )
    asked.options(parser)


def _input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="where the records are (see below)")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY",
        help="config key (or CSV column) whose values make methods of their own; repeatable",
    )
    parser.add_argument("--env", help="only this environment")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--source", help="only games of this source (official, generated, …)")


def _choice_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step",
        type=whole(0, "an optimizer step"),
        help="the evaluation at this optimizer step (default: each run's last)",
    )
    parser.add_argument(
        "--games",
        choices=("all", "common"),
        default="all",
        help="common: compare on the games that all runs played, instead of refusing",
    )
    parser.add_argument(
        "--leave-out",
        type=task_ids,
        metavar="FILE",
        help="text file of task ids that do not count, one a line (say, games that nobody can win in time)",
    )
    parser.add_argument(
        "--metric",
        type=lambda name: "won" if name == "success" else name,
        default="won",
        help="success (default), score, score_clipped (at 0), or any numeric episode column",
    )


def bootstrap(parser: argparse.ArgumentParser, draws: int) -> None:
    """Options of a command that resamples."""
    parser.add_argument(
        "--draws",
        type=whole(MIN_DRAWS, "resampling", MAX_DRAWS),
        default=draws,
        help=f"bootstrap draws (default {draws})",
    )
    parser.add_argument(
        "--seed", type=whole(0, "a generator's seed"), default=0, help="seed of the bootstrap (default 0)"
    )


def design(parser: argparse.ArgumentParser) -> None:
    """How runs of two methods are compared."""
    parser.add_argument(
        "--design",
        choices=DESIGNS,
        default="independent",
        help="independent: Welch's t; paired: t on the differences of runs with one seed; blocked: analysis "
        "of variance over all methods with a block for each seed, Dunnett's comparisons. Chosen before the "
        "data (default independent)",
    )
    parser.add_argument(
        "--unpaired",
        choices=("refuse", "drop"),
        default="refuse",
        help="runs without a partner in a paired or blocked design: refuse (default), or leave out",
    )


def average(parser: argparse.ArgumentParser) -> None:
    """Which mean over games is compared."""
    parser.add_argument(
        "--average",
        choices=AVERAGES,
        default="micro",
        help="micro: games count alike; macro: task types do; splits: the splits of an environment do",
    )


def records(args: argparse.Namespace, *tables: str) -> Records:
    """The records that the command names, with their notes on stderr."""
    from analysis.load import load

    found = load(args.inputs, tables=("episodes", *tables), vary=args.vary)
    note(found)
    return found


def note(found: Records) -> None:
    """Say on stderr what is not in the numbers."""
    for line in found.notes:
        print(f"note: {line}", file=sys.stderr)

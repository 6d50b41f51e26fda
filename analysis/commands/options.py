"""What commands share: where records come from, which episodes count, how tables are printed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import Refusal

if TYPE_CHECKING:
    import pandas as pd

    from analysis.load import Records

DESIGNS = ("independent", "paired", "blocked")
Tables = dict[str, "pd.DataFrame"]

INPUTS = """\
INPUT is any number of
  runs/                     a directory with run directories (or one of them)
  episodes.csv              one row per played game: method, env, split, seed, task, won (docs/analysis.md)
  mlflow:EXPERIMENT@URI     an MLflow experiment; without @URI it takes MLFLOW_TRACKING_URI
"""


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], Tables],
    text: str,
    *,
    inputs: bool = True,
    choice: bool = True,
) -> argparse.ArgumentParser:
    """Declare a command: its help (the first line of `text` in the overview), its records with `inputs`,
    which evaluation episodes count with `choice`, and how its tables are printed."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.strip().splitlines()[0],
        description=text,
        epilog=INPUTS if inputs else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    if inputs:
        _input_options(parser)
    if choice:
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
    return parser


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
        choices=("micro", "macro", "splits"),
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


def choice(args: argparse.Namespace) -> dict[str, Any]:
    """Which episodes count, as `analysis.check.select` takes it."""
    known = ("env", "split", "source", "step", "games", "leave_out")
    return {name: getattr(args, name) for name in known if hasattr(args, name)}


def resampled(args: argparse.Namespace) -> dict[str, Any]:
    """What a command that resamples hands on: `choice`, the metric, the level, the draws and their seed."""
    known = ("metric", "draws", "level", "seed", "design", "unpaired")
    return {name: getattr(args, name) for name in known if hasattr(args, name)} | choice(args)


MIN_DRAWS, MAX_DRAWS = 100, 1_000_000
"""The bounds of an interval are tails of the draws; fewer have none, and more than a million fill the memory
and change no digit that is shown."""


def level(text: str) -> float:
    """A confidence level, a fraction from 0.5 to below 1."""
    found = _number(text, "a confidence level")
    if not 0.5 <= found < 1:
        hint = f"; for {found:g} % write {found / 100:g}" if 50 <= found < 100 else ""
        raise argparse.ArgumentTypeError(
            f"{text} is no confidence level: it is a fraction such as 0.95{hint}."
        )
    return found


def margin(text: str) -> float:
    """A margin: positive, in the metric's unit."""
    found = _number(text, "a margin")
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text} is no margin: it is positive and in the metric's unit, such as 0.05 for 5 points."
        )
    return found


def fraction(text: str) -> float:
    """A share strictly between 0 and 1."""
    found = _number(text, "a share")
    if not 0 < found < 1:
        raise argparse.ArgumentTypeError(
            f"{text} does not lie between 0 and 1; write a fraction such as 0.8."
        )
    return found


def correlation(text: str) -> float:
    """A correlation below 1."""
    found = _number(text, "a correlation")
    if not -1 < found < 1:
        raise argparse.ArgumentTypeError(f"{text} is no correlation to plan with: it lies between -1 and 1.")
    return found


def amount(text: str) -> float:
    """A finite number from 0 on."""
    found = _number(text, "an amount")
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} will not do: it is a number from 0 on.")
    return found


def whole(least: int, what: str, most: int = 2**63 - 1) -> Callable[[str], int]:
    """The parser of whole numbers from `least` to `most`; `what` they are for."""

    def parse(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if not least <= found <= most:
            until = f"to {most}" if found > most else "on"
            raise argparse.ArgumentTypeError(
                f"{text[:40]} will not do: {what} takes a whole number from {least} {until}."
            )
        return found

    return parse


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and {what} is one.") from None


def names(text: str | None) -> list[str] | None:
    """A comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else None


def numbers(text: str) -> list[float]:
    """A comma-separated list of numbers."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise Refusal(f"{text!r} is not a list of numbers such as 3,5,10.") from None
    if not all(0 <= number < float("inf") for number in found):
        raise Refusal(f"{text!r} holds a number below 0 or one that is none; write a list such as 3,5,10.")
    return found


def counts(text: str, least: int, what: str) -> list[int]:
    """A comma-separated list of whole numbers from `least` on."""
    found = numbers(text)
    if any(number % 1 or number < least for number in found):
        raise Refusal(f"{text!r} will not do for {what}: those are whole numbers from {least} on.")
    return [int(number) for number in found]


def task_ids(path: str) -> tuple[str, ...]:
    """Task ids of a text file, one a line; `#` starts a comment."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read ({error.strerror}).") from None
    return tuple(sorted({line.split("#")[0].strip() for line in lines} - {""}))

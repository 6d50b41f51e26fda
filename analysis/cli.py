"""The front door, `python -m analysis`: finds the command, prints its tables, turns a refusal into a
sentence.

Invariant: a command only parses, calls the function of the module of its name, and hands back tables. Notes
on runs that are not in the numbers go to stderr on every command; a refusal is one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from analysis.commands import (
    agreement,
    compare,
    controls,
    cost,
    pairs,
    plan,
    power,
    published,
    rates,
    report,
    skipped,
    summary,
    thresholds,
    variance,
)
from analysis.commands.options import Tables
from analysis.errors import Refusal

COMMANDS = (
    summary,
    compare,
    pairs,
    power,
    variance,
    agreement,
    rates,
    cost,
    skipped,
    controls,
    thresholds,
    published,
    plan,
    report,
)

EPILOG = """\
three questions, three intervals
  this checkpoint on games like these    summary (Wilson, per run), compare --checkpoints (McNemar)
  this recipe on this benchmark          compare: Welch, or --design; the run is the unit
  this recipe on new games               compare: the interval, from the two-way bootstrap over runs and games

a first look
  python -m analysis summary runs/
  python -m analysis compare runs/ --baseline opd
  python -m analysis report runs/ --baseline opd --out report/
  python -m analysis published ../shared/published/sage_opd_tables.csv

`python -m analysis <command> --help` explains a command, docs/analysis.md all of them, docs/statistics.md
the methods.
"""


class Parser(argparse.ArgumentParser):
    """Refuses a wrong option as everything else is refused: one sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raises Refusal, which the command line prints."""
        raise Refusal(f"{message.rstrip('.')}; `{self.prog} --help` lists what there is.")


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="python -m analysis",
        description="Statistics over records of agent runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for module in COMMANDS:
        module.add(commands)
    return parser


def _print(tables: Tables, form: str, only: str | None) -> None:
    from analysis.render import render

    if only is not None and only not in tables:
        raise Refusal(f"This command has no table {only!r}; it has {', '.join(tables)}.")
    for name, frame in tables.items():
        if only is not None and name != only:
            continue
        if only is None and form in ("text", "md"):
            print(f"\n## {name}\n")
        sys.stdout.write(render(frame, form))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 2 on a refusal."""
    try:
        args = build_parser().parse_args(argv)
        tables = args.run(args)
        if args.csv_dir:
            folder = Path(args.csv_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for name, frame in tables.items():
                frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        _print(tables, args.format, args.table)
    except Refusal as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        print(
            f"refused: {error.filename or 'A file'} cannot be used ({error.strerror or error}).",
            file=sys.stderr,
        )
        return 2
    return 0

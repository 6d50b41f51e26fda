"""The front door, `python -m analysis`: finds the command, prints its tables, turns a refusal into a
sentence.

Invariant: a command only parses, asks its question (`analysis.questions`), and hands back tables. Notes on
runs that are not in the numbers go to stderr on every command; a refusal is one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from analysis import questions
from analysis.errors import Refusal
from analysis.questions.asked import Tables
from analysis.questions.options import declare

EPILOG = """\
three questions, three intervals
  this checkpoint on games like these    summary (Wilson, per run), compare --checkpoints (McNemar)
  this recipe on this benchmark          compare: Welch, or --design; the run is the unit
  this recipe on new games               compare: the interval, from the two-way bootstrap over runs and games

a first look
  python -m analysis summary runs/
  python -m analysis compare runs/ --baseline opd
  python -m analysis report runs/ --baseline opd --out report/
  python -m analysis published --own runs/

`python -m analysis <command> --help` explains a command, docs/guide/analysis.md all of them,
docs/reference/statistics.md the methods.
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
    for name, asked in questions.every().items():
        if asked.tables is not None:
            declare(commands, name, asked)
    return parser


def _renamed(words: Sequence[str]) -> list[str]:
    """The words of the command line with the command (and its table) called as it is now, and a note."""
    former = {asked.former: name for name, asked in questions.every().items() if asked.former}
    if not words or words[0] not in former:
        return list(words)
    old, new = words[0], former[words[0]]
    print(f"note: `{old}` is called `{new}` now; the old name goes with the next release.", file=sys.stderr)
    return [
        new if word == old and (i == 0 or words[i - 1] == "--table") else word for i, word in enumerate(words)
    ]


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
        args = build_parser().parse_args(_renamed(sys.argv[1:] if argv is None else argv))
        tables = args.asked.tables(args)
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

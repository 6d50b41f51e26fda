"""The command lines that export run directories: by hand, where each is tried and each failure is a sentence,
and as the child process that follows them (`sage.records.loggers.follow`)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sage.records.loggers.follow import Syncing, serve
from sage.records.reader import open_attempt
from sage.redaction import guard_streams


class Ways(NamedTuple):
    """follow: makes what a directory is exported by while it grows. send: exports one; returns where its run
    is now. explain: what went wrong, in a clause."""

    follow: Callable[[Path], Syncing]
    send: Callable[[Path], str]
    explain: Callable[[Exception], str]


def export_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """The words that all exports take; each adds its own."""
    parser = argparse.ArgumentParser(prog=prog, description=doc)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run_dir", nargs="*", type=Path, help="attempt folders: runs/<digest12>/attempt_<n>")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--poll", type=float, default=5.0, help=argparse.SUPPRESS)
    return parser


def run_export(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    ways_of: Callable[[argparse.Namespace], Ways],
) -> int:
    """The exit code: 1 where any run directory could not be exported."""
    options = parser.parse_args(arguments)
    if not (options.serve or options.run_dir):
        parser.error("name an attempt folder: runs/<digest12>/attempt_<n>")
    guard_streams()
    ways = ways_of(options)
    if options.serve:
        os.nice(10)  # the run's own cores come first
        return serve(ways.follow, ways.explain, options.poll)
    return export_each(options.run_dir, ways.send, ways.explain)


def export_each(
    run_dirs: Iterable[Path], send: Callable[[Path], str], explain: Callable[[Exception], str]
) -> int:
    """Exit code: 1 where any could not be exported. `send` returns where a directory's run is now."""
    failed = False
    for run_dir in run_dirs:
        attempt = open_attempt(run_dir)
        for note in attempt.notes:
            print(note, file=sys.stderr)
        if not attempt.is_usable:
            if not attempt.notes:
                print(f"{run_dir} is no run directory: it has no run.json.", file=sys.stderr)
            failed = True
            continue
        try:
            print(f"{run_dir}: {send(run_dir)}")
        except Exception as error:
            print(f"{run_dir}: not exported, {explain(error)}.", file=sys.stderr)
            failed = True
    return int(failed)

"""The commands that export run directories by hand: each is tried, and each failure is a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from sage.records.reader import open_attempt


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

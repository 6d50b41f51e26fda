"""The attempts under any folder that somebody names: `runs/`, one run, one attempt, a folder of studies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sage.records.reader import Attempt, attempt_dirs, attempt_number, open_attempt

_MARKS = ("status.json", "episodes.parquet", "config.yaml")
"""What a folder holds one of where a run has begun in it."""


def attempts_below(root: Path) -> tuple[list[Path], list[str]]:
    """Attempts below `root`, or `root` itself, in order, and a note for what looks like one or cannot be
    read."""

    def has_records(path: Path) -> bool:
        return any(os.path.lexists(path / mark) for mark in _MARKS)

    if has_records(root):
        return [root], []
    found: list[Path] = []
    notes: list[str] = []

    def tell(error: OSError) -> None:
        notes.append(f"{error.filename} cannot be read: {error.strerror}.")

    for folder, names, files in os.walk(root, onerror=tell):
        if any(name.startswith("attempt_") for name in (*names, *files)):
            paths, said = attempt_dirs(Path(folder))
            found += [path for path in paths if has_records(path)]
            notes += [*said, *(f"{path} has no records." for path in paths if not has_records(path))]
        names[:] = sorted(name for name in names if not name.startswith("attempt_"))
    return sorted(found, key=lambda path: (path.parent.as_posix(), attempt_number(path) or 0)), notes


def open_below(roots: Iterable[Path]) -> tuple[list[Attempt], list[str]]:
    """The usable attempts below several folders, each once, and a note for whatever is left out."""
    usable: dict[str, Attempt] = {}
    notes: list[str] = []
    for root in roots:
        paths, said = attempts_below(root)
        notes += said
        for path in paths:
            attempt = open_attempt(path)
            notes += attempt.notes
            if attempt.is_usable:
                usable.setdefault(os.path.realpath(path), attempt)
            elif not attempt.notes:
                notes.append(f"{path} has no run.json: it is left out.")
    return list(usable.values()), list(dict.fromkeys(notes))

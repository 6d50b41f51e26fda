"""The digests that a run writes down about its own records when it is done, and what they say later.

In status.json, `sha256` maps each table, `config.yaml`, `run.json` and `provenance.json` to the sha256 of its
bytes, and `source` to that of the code that ran (the package's files and the plugins' own). They show a
record that was changed afterwards by slip; who means to deceive can write them anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import sage
from sage.records.schema import TABLES

FILES = (*(f"{table}.parquet" for table in TABLES), "config.yaml", "run.json", "provenance.json")
SOURCE = "source"


def digests(folder: Path, plugins: Iterable[str] = ()) -> dict[str, str]:
    """sha256 of every record file of an attempt that is there, and of the code of this process."""
    from sage.records.provenance import source_digest  # `analysis` reads digests and needs nothing of it

    found = {name: file_digest(folder / name) for name in FILES if (folder / name).is_file()}
    return found | {SOURCE: source_digest(Path(sage.__file__).resolve().parent, plugins)}


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

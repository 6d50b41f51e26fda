"""A checkpoint's list of its files, so that a damaged one is told from a whole one before anything is loaded.

Invariant: what `set_aside` leaves as `step-*` has passed. A checkpoint is renamed into place complete, so
only the disk, or somebody, can have changed it since: the list holds the size and CRC-32 of every file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path

from sage.records.files import Unreadable, read_object

SEAL = "files.json"
ASIDE = "damaged-"
_NAME = re.compile(r"step-([0-9]+)")
_CHUNK = 2**22


def seal(folder: Path) -> None:
    """Write the list of what is in `folder`; the last file of a checkpoint."""
    listed = {name: [(folder / name).stat().st_size, _crc32(folder / name)] for name in _files(folder)}
    (folder / SEAL).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint, in a few words; nothing where it is whole."""
    try:
        listed = read_object(folder / SEAL)
        if listed is None:  # of an earlier version
            return _broken_form(folder)
        present = set(_files(folder)) - {SEAL}
        if missing := sorted(set(listed) - present):
            return f"{missing[0]} is missing"
        for name, (size, crc32) in listed.items():
            path = folder / name
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
            if _crc32(path) != crc32:
                return f"{name} is not what was written"
    except (OSError, Unreadable, ValueError, TypeError) as error:
        return str(error).rstrip(".")
    return ""


def steps(folder: Path) -> dict[int, Path]:
    """Checkpoints by step, ascending; whatever else lies there is none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    found = {int(match.group(1)): folder / name for name in names if (match := _NAME.fullmatch(name))}
    return {step: found[step] for step in sorted(found) if os.path.isdir(found[step])}


def set_aside(folder: Path) -> list[str]:
    """Rename damaged checkpoints out of the way, newest first, until one is whole: one sentence for each."""
    notes = []
    for step, path in reversed(steps(folder).items()):
        problem = damage(path)
        if not problem:
            break
        aside = folder / f"{ASIDE}{path.name}"
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        before = [s for s in steps(folder) if s < step]
        goes_on = f"step {before[-1]}" if before else "the beginning"
        notes.append(f"The checkpoint {aside} is damaged ({problem}): the run goes on from {goes_on}.")
    return notes


def _broken_form(folder: Path) -> str:
    """For a checkpoint without a list: whether its archive of tensors is whole."""
    trainer = folder / "trainer.pt"
    if not trainer.is_file():
        return "trainer.pt is missing"
    try:
        with zipfile.ZipFile(trainer) as archive:
            if broken := archive.testzip():
                return f"trainer.pt is not what was written ({broken})"
    except zipfile.BadZipFile:
        return "trainer.pt is cut"
    for path in sorted((folder / "student").glob("*.safetensors")):
        if not _is_whole(path):
            return f"student/{path.name} is cut"
    return "" if (folder / "student" / "config.json").is_file() else "student/config.json is missing"


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return False
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + length + max(ends, default=0)


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value

"""What the machine refused, in one sentence: a full disk, a folder that is read-only, a lock that is held."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sage.errors import reason_of

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MACHINE = (errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ESTALE)
_TELLS = re.compile(r"No space left|disk is full|Disk quota exceeded|database or disk is full|code: 28\b")
"""How libraries that raise no OSError tell of a full disk (safetensors, SQLite, Arrow)."""


def what_failed(error: OSError) -> str:
    """The system's own words and the file, without numbers and without a full stop."""
    words = error.strerror or reason_of(error)
    where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
    return f"{words}{where}".rstrip(".")


def machine_fault(error: BaseException, folder: Path) -> str:
    """One sentence where it is the machine that failed under `folder`, nothing where it is the program."""
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return f"The machine refused a file: {what_failed(error)}."
    for cause in _chain(error):
        full = isinstance(cause, OSError) and cause.errno in FULL
        full = full or bool(_TELLS.search(str(cause)[:2000]))
        if full or (isinstance(cause, RuntimeError) and not has_room(folder)):  # torch gives no reason
            where = cause.filename if isinstance(cause, OSError) and cause.filename else folder
            return (
                f"The disk is full: {where} could not be written. Make room and type the same line again: "
                "it goes on from the newest checkpoint."
            )
    return ""


def has_room(folder: Path) -> bool:
    """Whether a small file can be written into `folder` now."""
    probe = folder / f".room.{os.getpid()}"
    try:
        probe.write_bytes(b"\1" * 2**16)
        return True
    except OSError as error:
        return error.errno not in FULL
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, at most ten deep."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__

"""Writes that a kill or a power cut leaves whole: one small file replaced by another (or, where the disk is
full, written over), and what was written flushed before it is named."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path


def write_atomic(path: Path, text: str, durable: bool = True) -> None:
    """Replace a file so that a reader sees the old or the new content, also after a kill or a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        # A path in another encoding than UTF-8 has lone surrogates, which JSON can hold only escaped.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def overwrite(path: Path, text: str) -> None:
    """Write over a small file in its own blocks, which a full disk allows; a reader may see half of it."""
    content = text.encode(errors="backslashreplace")
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def flush_to_disk(path: Path) -> None:
    """Of a file or folder, so that the rename that follows never outlives the content in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

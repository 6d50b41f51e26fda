"""Small files that anybody may have cut, replaced or locked: their content, or one sentence."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20
"""Larger is none of our JSON files; reading it would take the memory of the process."""


class Unreadable(ValueError):
    """A file is there and cannot be used; the message is one sentence that names it."""


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON file's object; None where there is no file. Raises Unreadable for everything else.

    Asks what it is before it opens it: a pipe would be waited for, a device read without end.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable(f"{path} is no file.")
        if found.st_size > MAX_BYTES:
            raise Unreadable(f"{path} has {found.st_size:,} bytes, which is none of ours.")
        text = path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is not UTF-8 text.") from error
    try:
        data = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        what = "is empty" if not text.strip() else "is cut or no JSON"
        raise Unreadable(f"{path} {what}.") from error
    if not isinstance(data, dict):
        raise Unreadable(f"{path} holds no JSON object.")
    return data


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of ours")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value

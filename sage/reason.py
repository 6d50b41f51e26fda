"""What an error says, short enough for a sentence of ours."""

from __future__ import annotations


def reason_of(error: BaseException) -> str:
    """The first line of the error's message; the name of its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

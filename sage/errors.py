"""Refusals that users see: each is one sentence that says what is wrong, where, and what would be right."""

from __future__ import annotations

from sage.reason import reason_of


class ModelError(ValueError):
    """A model cannot be loaded or used; the message is one sentence for the user."""


def short_reason(error: BaseException, limit: int = 160) -> str:
    """What an error says on one line of at most `limit` characters, without the stop at its end."""
    text = " ".join(reason_of(error).split())
    return (text if len(text) <= limit else text[: limit - 1].rstrip() + "…").rstrip(" .:")


def some(names: list[str], count: int = 3) -> str:
    """The first names of many, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more

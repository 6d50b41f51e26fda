"""Refusals that users see: each is one sentence that says what is wrong, where, and what would be right."""

from __future__ import annotations

import errno
import re

LONGEST = 400
"""Characters that a refusal may have; what was typed may be longer, and is quoted in part."""
_LONGEST_WORD = 200


class Refusal(ValueError):
    """One sentence for the user; no traceback is shown."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_bearable(str(message)))


class ConfigError(Refusal):
    """The config cannot be used."""


class ModelError(Refusal):
    """A model cannot be loaded or used; the message is one sentence for the user."""


class RunFailure(RuntimeError):
    """Why a run cannot go on, in one sentence; it is `failed`, and the same line goes on from its newest
    checkpoint."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_bearable(str(message)))


class EnvironmentFault(RuntimeError):
    """Infrastructure failed; the episode becomes `env_error` and says nothing about the agent."""


class OutOfMemory(RunFailure):
    """Something does not fit the memory; the sentence says what to lower."""

    def __init__(self, what: str, error: BaseException, way: str) -> None:
        """what: what was going on; way: what makes it smaller, without a full stop."""
        super().__init__(f"Out of memory in {what} ({short_reason(error)}): {way}.")


class TeacherLost(RunFailure):
    """A teacher elsewhere is gone, spent or another one: no failure of any agent."""


class NotFinite(RunFailure, FloatingPointError):
    """A number that has to be finite is not: nothing that follows from it would be a result."""


_MEMORY = re.compile(r"out of memory|can(?:'|no)t allocate memory|_ALLOC_FAILED", re.IGNORECASE)
"""How torch, its allocators and cuBLAS tell of it where their error has no type of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was the memory, of a device or of the machine, that did not suffice."""
    if isinstance(error, RunFailure):  # which may quote one
        return isinstance(error, OutOfMemory)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)[:2000]) is not None


def _bearable(text: str) -> str:
    """On one line, printable, long words cut in their middle, and not over `LONGEST`."""
    words = [word if len(word) <= _LONGEST_WORD else f"{word[:60]}…{word[-20:]}" for word in text.split()]
    line = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in " ".join(words))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 60].rstrip()} … {line[-50:].lstrip()}"


def reason_of(error: BaseException) -> str:
    """The first line of the error's message; the name of its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def named_reason(error: BaseException) -> str:
    """`ValueError: the first line of its message`; the name alone where it says nothing."""
    name = type(error).__name__
    return f"{name}: {reason_of(error)}" if str(error).strip() else name


def short_reason(error: BaseException, limit: int = 160) -> str:
    """What an error says on one line of at most `limit` characters, without the stop at its end."""
    text = " ".join(reason_of(error).split())
    return (text if len(text) <= limit else text[: limit - 1].rstrip() + "…").rstrip(" .:")


def some(names: list[str]) -> str:
    """The first three names of many, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more

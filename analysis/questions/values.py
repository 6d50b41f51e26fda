"""What a word of the command line must be: a level, a share, a margin, a whole number, a list of them.

Each parser takes the text and returns the value; what will not do is refused in one sentence
that says what would.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from analysis.errors import Refusal

MIN_DRAWS, MAX_DRAWS = 100, 1_000_000
"""The bounds of an interval are tails of the draws; fewer have none, and more than a million fill the memory
and change no digit that is shown."""


def level(text: str) -> float:
    """A confidence level, a fraction from 0.5 to below 1."""
    found = _number(text, "a confidence level")
    if not 0.5 <= found < 1:
        hint = f"; for {found:g} % write {found / 100:g}" if 50 <= found < 100 else ""
        raise argparse.ArgumentTypeError(
            f"{text} is no confidence level: it is a fraction such as 0.95{hint}."
        )
    return found


def margin(text: str) -> float:
    """A margin: positive, in the metric's unit."""
    found = _number(text, "a margin")
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text} is no margin: it is positive and in the metric's unit, such as 0.05 for 5 points."
        )
    return found


def fraction(text: str) -> float:
    """A share strictly between 0 and 1."""
    found = _number(text, "a share")
    if not 0 < found < 1:
        raise argparse.ArgumentTypeError(
            f"{text} does not lie between 0 and 1; write a fraction such as 0.8."
        )
    return found


def correlation(text: str) -> float:
    """A correlation below 1."""
    found = _number(text, "a correlation")
    if not -1 < found < 1:
        raise argparse.ArgumentTypeError(f"{text} is no correlation to plan with: it lies between -1 and 1.")
    return found


def amount(text: str) -> float:
    """A finite number from 0 on."""
    found = _number(text, "an amount")
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} will not do: it is a number from 0 on.")
    return found


def whole(least: int, what: str, most: int = 2**63 - 1) -> Callable[[str], int]:
    """The parser of whole numbers from `least` to `most`; `what` they are for."""

    def parse(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if not least <= found <= most:
            until = f"to {most}" if found > most else "on"
            raise argparse.ArgumentTypeError(
                f"{text[:40]} will not do: {what} takes a whole number from {least} {until}."
            )
        return found

    return parse


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and {what} is one.") from None


def names(text: str) -> tuple[str, ...]:
    """A comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> list[float]:
    """A comma-separated list of numbers."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise Refusal(f"{text!r} is not a list of numbers such as 3,5,10.") from None
    if not all(0 <= number < float("inf") for number in found):
        raise Refusal(f"{text!r} holds a number below 0 or one that is none; write a list such as 3,5,10.")
    return found


def counts(text: str, least: int, what: str) -> list[int]:
    """A comma-separated list of whole numbers from `least` on."""
    found = numbers(text)
    if any(number % 1 or number < least for number in found):
        raise Refusal(f"{text!r} will not do for {what}: those are whole numbers from {least} on.")
    return [int(number) for number in found]


def task_ids(path: str) -> tuple[str, ...]:
    """Task ids of a text file, one a line; `#` starts a comment."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read ({error.strerror}).") from None
    return tuple(sorted({line.split("#")[0].strip() for line in lines} - {""}))

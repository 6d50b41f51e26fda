"""Tab completion of `sage`: groups, options and settings are Hydra's answer; commands, which it does not
know, are ours (docs/reference/command_line.md).

A shell asks by `sage -sc query=SHELL`, with what is typed so far in COMP_LINE.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_COMMANDS = ("list", "check", "confirm", "teacher", "view", "analysis")
_TEACHER = ("start", "status", "stop")


def answered(arguments: Sequence[str]) -> bool:
    """Whether this is a shell's question that is answered with what has been printed; where Hydra has more to
    say, COMP_LINE is what it understands."""
    asked = {"-sc", "--shell-completion", "--shell_completion"} & set(arguments)
    if not asked or not any(word.startswith("query=") for word in arguments):
        return False
    choices, line = completed(os.environ.get("COMP_LINE", ""))
    if choices:
        print("\n".join(choices))
    if line is not None:
        os.environ["COMP_LINE"] = line
    return line is None


def completed(line: str) -> tuple[list[str], str | None]:
    """Commands that go on from `line`, and the line as Hydra is asked about it, None where it is not."""
    program, _, rest = line.partition(" ")
    *whole, typed = f"{rest}.".split()  # the last word is being typed: none as yet, behind a blank
    typed = typed[:-1]
    match whole:
        case []:
            return [command for command in _COMMANDS if typed and command.startswith(typed)], line
        case ["teacher"]:
            return [word for word in _TEACHER if word.startswith(typed)], None
        case ["view" | "analysis", *_]:
            return [], None
        case ["teacher", _, *settings] | ["list" | "check" | "confirm", *settings]:
            return [], " ".join([program, *settings, typed])
    return [], line

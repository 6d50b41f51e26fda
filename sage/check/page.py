"""One page of findings: under each heading lines that are fine, a warning, or refused, as they are found."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from sage.errors import RunFailure, short_reason

WIDTH = 110
_INDENT = " " * 12


class Verdict(StrEnum):
    """What a line says; a page with a refused one means exit code 2."""

    FINE = "fine"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Line:
    """One finding, with its numbers and, unless it is fine, the way out."""

    verdict: Verdict
    text: str


def fine(text: str) -> Line:
    return Line(Verdict.FINE, text)


def warning(text: str) -> Line:
    return Line(Verdict.WARNING, text)


def refused(text: str) -> Line:
    return Line(Verdict.REFUSED, text)


@dataclass
class Page:
    """Prints each line at once through `say`; keeps all of them, by heading."""

    say: Callable[[str], None] = print
    lines: dict[str, list[Line]] = field(default_factory=dict)

    def part(self, heading: str, lines: Callable[[], Iterable[Line]]) -> bool:
        """Add what a part finds; False where it refused. An error in it is a refused line, never a
        traceback."""
        found = self.lines.setdefault(heading, [])
        started = time.perf_counter()
        self.say(f"\n{heading}")
        for line in _safely(lines):
            found.append(line)
            text = f"  {line.verdict:<8}  {line.text}"
            self.say(textwrap.fill(text, WIDTH, subsequent_indent=_INDENT, break_on_hyphens=False))
        self.say(f"{_INDENT}({time.perf_counter() - started:.1f} s)")
        return all(line.verdict is not Verdict.REFUSED for line in found)

    def count(self, verdict: Verdict) -> int:
        return sum(line.verdict is verdict for lines in self.lines.values() for line in lines)

    @property
    def exit_code(self) -> int:
        """0 where nothing is refused, else 2."""
        return 2 if self.count(Verdict.REFUSED) else 0

    def end(self, seconds: float) -> None:
        """The last line: how many of each, and how long it took."""
        counts = ", ".join(f"{self.count(v)} {v}" for v in Verdict)
        verdict = "Refused" if self.exit_code else "Nothing is refused"
        self.say(f"\n{verdict}: {counts}, {seconds:.0f} s.")


def _safely(lines: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """The lines, and whatever is raised on the way as the last of them."""
    try:
        yield from lines()
    except RunFailure as error:
        yield refused(str(error))
    except ValueError as error:  # ConfigError, ModelError, MissingData: sentences for the user
        yield refused(str(error) if type(error) is not ValueError else _broken(error))
    except Exception as error:
        yield refused(_broken(error))


def _broken(error: Exception) -> str:
    return f"This could not be looked at: {type(error).__name__}: {short_reason(error)}."

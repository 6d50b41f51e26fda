"""Every `python -m sage …` line of README and guide is one that the program takes: it composes and validates.

(What the lines then do is tested where it belongs; a page cannot name a setting or option that is not there.)
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sage.config.load import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
ELSEWHERE = {"view": "tests/view", "teacher": "tests/teacher/ray"}
"""Commands with words of their own -> the tests that know them."""
OWN = ("env=drawers", "--config-dir")
"""Of the package of examples and of folders that the reader has: tests/test_own_parts.py."""


def lines() -> list[tuple[str, str]]:
    """(page, line) of each command in a code block or in a table's code, without its comment."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        typed = [m.strip() for m in re.findall(r"^(?:    )?(python -m sage(?: .*)?)$", text, re.MULTILINE)]
        typed += re.findall(r"`(python -m sage [^`]*)`", text)
        found += [(page.stem, re.split(r"\s+#\s", line)[0].strip()) for line in typed]
    return sorted(set(found))


def words_of(line: str) -> list[str] | None:
    """The overrides of the first run of a line; None where the line is not for `load`."""
    words = shlex.split(line)[3:]
    if "…" in line or "..." in line or any(word.startswith(OWN) for word in words):
        return None
    if words[:1] and words[0] in ELSEWHERE:
        return None
    if words[:1] and words[0] in ("list", "check", "confirm"):
        words = words[1:]
    if {"--help", "--version", "--cfg"} & set(words):
        return None
    taken, number = [], False
    for word in words:
        if number or word in ("-m", "--memory", "--processes"):
            number = word.startswith("--")  # and the number behind it
            continue
        name, _, value = word.partition("=")
        if name in ("study", "sweep") or name.startswith(("hydra/", "hydra.", "launch.until")):
            assert name not in ("study", "sweep") or _file(name, value), word
            continue  # the launcher's and the sweeper's, which read them
        several = "," in value and not value.startswith(("[", "{"))
        taken.append(f"{name}={value.split(',')[0]}" if several else word)
    return taken


def _file(group: str, name: str) -> bool:
    return name == "mine" or (ROOT / "conf" / group / f"{name}.yaml").is_file()


def test_the_pages_have_the_commands_that_they_should() -> None:
    there = [line for _, line in lines()]
    assert len(there) > 30
    assert "python -m sage budget=smoke" in there
    assert sum(words_of(line) is not None for line in there) > 25


@pytest.mark.parametrize(("page", "line"), lines())
def test_a_command_of_a_page_is_one_that_the_program_takes(page: str, line: str) -> None:
    words = words_of(line)
    if words is not None:
        load(words)

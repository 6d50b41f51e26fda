"""Every text file that this project opens says its encoding: the locale of a machine decides nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("sage", "analysis", "pretrain", "sweeps")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
ALWAYS_TEXT = {"read_text": 0, "write_text": 1}
"""Calls that are always text, with the place of their encoding."""
NO_FILES = ("dialogue", "_dialogue", "simulator", "settings", "logger")
"""What has an `open` of its own."""
BY_MODE = ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile")
"""Calls that are text or bytes by their mode."""
BY_FLAG = ("run", "Popen", "check_output")
"""Calls of subprocess, which are text where `text=True` says so."""


def calls_without_encoding(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of every call that reads or writes text in the locale's encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
        given = {word.arg: word.value for word in node.keywords}
        if "encoding" in given or (name, owner) == ("open", "os"):
            continue
        by_place = len(node.args) > ALWAYS_TEXT.get(name, 99)
        if name in ALWAYS_TEXT and not by_place:
            yield node.lineno, name
        if name in BY_MODE and not _is_no_file(node) and "b" not in _mode(node, name, owner, given):
            yield node.lineno, name
        if name in BY_FLAG and _is_true(given.get("text")):
            yield node.lineno, f"{name}(text=True)"


def _mode(node: ast.Call, name: str, owner: str, given: dict[str | None, ast.expr]) -> str:
    """The literal mode of a call that opens a file; `w+b` and `r` are what the calls assume themselves."""
    method = isinstance(node.func, ast.Attribute) and owner not in ("io", "os", "gzip", "tempfile")
    place = 0 if method or "Temporary" in name else 1
    value = given.get("mode") or (node.args[place] if len(node.args) > place else None)
    if value is None:
        return "w+b" if "Temporary" in name else "r"
    return str(value.value) if isinstance(value, ast.Constant) else "unknown"


def _is_no_file(node: ast.Call) -> bool:
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    return (getattr(owner, "attr", None) or getattr(owner, "id", None)) in NO_FILES


def _is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open('a')", ["open"]),
        ("open('a', 'rb')", []),
        ("path.open('w')", ["open"]),
        ("path.open('wb')", []),
        ("path.open('w', encoding='utf-8')", []),
        ("dialogue.open('a', 'b')", []),
        ("path.write_text('x', 'utf-8')", []),
        ("path.write_text('x')", ["write_text"]),
        ("path.read_text(errors='replace')", ["read_text"]),
        ("subprocess.run(['ls'], text=True)", ["run(text=True)"]),
        ("subprocess.run(['ls'])", []),
        ("tempfile.NamedTemporaryFile('w')", ["NamedTemporaryFile"]),
        ("tempfile.NamedTemporaryFile()", []),
    ],
)
def test_the_walk_knows_text_from_bytes(line: str, found: list[str]) -> None:
    assert [what for _, what in calls_without_encoding(line)] == found


def test_every_text_file_is_opened_with_an_encoding() -> None:
    assert len(SOURCES) > 150
    missing = [
        f"{path.relative_to(ROOT)}:{line} {what}"
        for path in SOURCES
        for line, what in calls_without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert missing == []

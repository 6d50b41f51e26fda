"""The command line of a script, read from its source: nothing of what the script imports is loaded for it."""

from __future__ import annotations

import argparse
import ast
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_ADDS = ("add_argument", "add")
"""`parser.add_argument(…)`, or a name for it."""


class Refused(Exception):
    """A word that the script would not take."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Refused(message)


@cache
def _tree(script: Path) -> ast.Module:
    return ast.parse(script.read_text(encoding="utf-8"))


def _adds(script: Path) -> list[ast.Call]:
    """Its calls that add an argument; where it has none, those of the benchmark whose `main` it borrows."""
    calls = [node for node in ast.walk(_tree(script)) if isinstance(node, ast.Call) and node.args]
    own = [
        call
        for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", "")) in _ADDS
        and isinstance(call.args[0], ast.Constant)
    ]
    if own:
        return own
    imports = [node.module or "" for node in ast.walk(_tree(script)) if isinstance(node, ast.ImportFrom)]
    borrowed = [ROOT / f"{name.replace('.', '/')}.py" for name in imports if name.startswith("benchmarks.")]
    return next(filter(None, map(_adds, borrowed)), [])


def _given(script: Path, name: str) -> ast.expr | None:
    """What the module says that a name is."""
    for node in _tree(script).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return getattr(node, "value", None)
    return None


def _constants(script: Path, value: ast.expr | None) -> list[str] | None:
    """The strings of a list, or of one that a name of the module stands for; None where they are computed."""
    if isinstance(value, ast.Name):
        value = _given(script, value.id)
    items = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [])
    strings = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return strings if items and len(strings) == len(items) else None


def parsed(script: Path, words: list[str]) -> argparse.Namespace | None:
    """`words` as the script reads them, numbers as text; None where it has no parser.

    Raises Refused where it would not take them.
    """
    parser = _Parser(add_help=False)
    calls = _adds(script)
    for call in calls:
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        kept: dict[str, Any] = {
            name: ast.literal_eval(keywords[name]) for name in ("action", "nargs") if name in keywords
        }
        if choices := _constants(script, keywords.get("choices")):
            kept["choices"] = choices
        parser.add_argument(*(ast.literal_eval(name) for name in call.args), **kept)
    return parser.parse_args(words) if calls else None

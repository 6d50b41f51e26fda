"""Rooms stand on floors, an import may only point down, and no module imports itself in a circle.

Read with `ast`: an import inside a function and one for the type checker count like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = ("sage", "pretrain", "analysis", "sweeps/hydra_plugins")

GROUND = (
    "sage",
    *(f"sage.{n}" for n in ["errors", "episode", "redaction", "locks", "signals", "digests", "fetch"]),
    "sage.old_names",
)
"""Files at the root that everybody may read; they read nothing but each other."""

FLOORS: dict[str, tuple[str, ...]] = {
    "ground": (),
    "sage.config": ("ground",),
    "sage.records": ("ground", "sage.config"),
    "sage.console": ("ground", "sage.records"),
    "sage.objective": ("ground", "sage.config", "sage.records"),
    "sage.envs.alfworld.simulator": ("ground",),
    "sage.envs": ("ground", "sage.config", "sage.envs.alfworld.simulator"),
    "sage.policy.models": ("ground", "sage.config", "sage.records", "sage.objective"),
    "sage.policy.decoding": ("ground", "sage.config", "sage.records", "sage.policy.models"),
    "sage.policy": (
        *("ground", "sage.config", "sage.records", "sage.envs"),
        *("sage.policy.models", "sage.policy.decoding"),
    ),
    "sage.teacher": (
        *("ground", "sage.config", "sage.records", "sage.objective"),
        *("sage.policy.models", "sage.policy.decoding", "sage.policy"),
    ),
    "sage.training": (
        *("ground", "sage.config", "sage.records", "sage.objective", "sage.envs"),
        *("sage.policy.models", "sage.policy.decoding", "sage.policy", "sage.teacher"),
    ),
    "sage.check": (
        *("ground", "sage.config", "sage.objective", "sage.envs"),
        *("sage.policy.models", "sage.policy.decoding", "sage.policy", "sage.teacher", "sage.training"),
    ),
    "sage.run": (
        *("ground", "sage.config", "sage.records", "sage.console", "sage.objective", "sage.envs"),
        *("sage.policy.models", "sage.policy.decoding", "sage.policy", "sage.teacher"),
        *("sage.training", "sage.check"),
    ),
    "sage.launch": (
        *("ground", "sage.config", "sage.records", "sage.console", "sage.envs", "sage.policy.models"),
        *("sage.policy", "sage.teacher", "sage.training", "sage.check", "sage.run"),
    ),
    "sage.sweep": ("ground", "sage.config", "sage.records", "sage.launch"),
    "sage.view": ("ground", "sage.config", "sage.records", "sage.objective", "sage.policy", "sage.teacher"),
    "sage.api": ("ground", "sage.config", "sage.records", "sage.launch"),
    "sage.__main__": ("ground", "sage.config", "sage.launch", "sage.view"),
    "hydra_plugins": ("ground", "sage.config", "sage.launch", "sage.sweep"),
    "pretrain": (
        *("ground", "sage.config", "sage.envs.alfworld.simulator", "sage.envs"),
        *("sage.policy.models", "sage.policy"),
    ),
    "analysis": ("ground", "sage.config", "sage.records"),
}
"""Each room and the rooms that it may import beside itself, the lowest first."""

EXCEPTIONS = {
    ("sage.launch.execute", "pretrain.run"): "the command task=pretrain, by its name",
    ("sage.__main__", "analysis.cli"): "the command `sage analysis`, by its name",
    ("sage.view.cli", "analysis.errors"): "mlflow:EXPERIMENT@URI of `sage view`: its refusals",
    ("sage.view.cli", "analysis.load_mlflow"): "mlflow:EXPERIMENT@URI of `sage view`",
}
"""Imports that point up, each with its reason."""


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for home in HOMES:
        for path in sorted((ROOT / home).rglob("*.py")):
            parts = path.relative_to((ROOT / home).parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> Iterator[str]:
    """Modules of the project that a module imports, wherever in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            wanted = [f"{base}.{alias.name}" for alias in node.names]
            wanted = [one if one in modules() else base for one in wanted]
        else:
            continue
        yield from (one for one in wanted if one in modules() and one != name)


def room(name: str) -> str:
    """The room that a module stands in: the longest that its name begins with."""
    if name in GROUND:
        return "ground"
    at = [known for known in FLOORS if name == known or name.startswith(known + ".")]
    return max(at, key=len, default=name)


@cache
def edges() -> list[tuple[str, str]]:
    return sorted({(name, one) for name, path in modules().items() for one in imports(name, path)})


def circles(graph: list[tuple[str, str]]) -> list[list[str]]:
    """Groups of modules that import each other, by whatever way (Tarjan's strongly connected components)."""
    beside: dict[str, list[str]] = {}
    for name, one in graph:
        beside.setdefault(name, []).append(one)
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for one in beside.get(name, ()):
            if one not in order:
                visit(one)
            if one in stack:
                lowest[name] = min(lowest[name], lowest[one])
        if lowest[name] == order[name]:
            place = stack.index(name)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for name in sorted(beside):
        if name not in order:
            visit(name)
    return sorted(found)


def test_every_module_stands_in_a_room() -> None:
    assert [name for name in modules() if room(name) not in FLOORS] == []


def test_a_room_may_only_import_rooms_below_it() -> None:
    rooms = list(FLOORS)
    for name, below in FLOORS.items():
        assert [one for one in below if rooms.index(one) >= rooms.index(name)] == [], name


def test_no_import_points_up() -> None:
    up = [
        f"{name} imports {one}: {room(one)} is not below {room(name)}"
        for name, one in edges()
        if room(one) != room(name) and room(one) not in FLOORS[room(name)] and (name, one) not in EXCEPTIONS
    ]
    assert up == []


def test_no_exception_is_left_over() -> None:
    assert set(EXCEPTIONS) <= set(edges())


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circles(edges()) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("import sage.errors", ["sage.errors"]),
        ("from sage import errors, episode", ["sage.errors", "sage.episode"]),
        ("from sage.errors import ConfigError", ["sage.errors"]),
        ("def f():\n    from sage.config.load import load", ["sage.config.load"]),
        ("if TYPE_CHECKING:\n    import sage.locks as locks", ["sage.locks"]),
        ("from ..records import tables", ["sage.records.tables"]),
        ("from . import page", ["sage.check.page"]),
        ("import json", []),
    ],
)
def test_an_import_is_seen_in_whatever_form_it_has(text: str, wanted: list[str], tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(text)
    assert list(imports("sage.check.one", path)) == wanted


def test_a_circle_is_found_through_any_number_of_modules() -> None:
    chain = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")]
    assert circles(chain) == []
    assert circles([*chain, ("d", "b")]) == [["b", "c", "d"]]
    assert circles([*chain, ("b", "a"), ("e", "d")]) == [["a", "b"], ["d", "e"]]

"""docs/architecture.md names what is there: every path, every collective call, every room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.test_floors import FLOORS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_PATH = re.compile(r"`((?:sage|pretrain|analysis|conf|sweeps|tests)/[\w./]*)`")
_SHORT = re.compile(r"(?<![\w/])((?:envs|policy|objective|training|teacher|records)/[\w/]*(?:\.py)?)")


def test_every_path_on_the_page_exists() -> None:
    named = set(_PATH.findall(PAGE))
    assert len(named) > 40
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_path_in_the_picture_exists() -> None:
    picture = PAGE.partition("```mermaid")[2].partition("```")[0]
    named = set(_SHORT.findall(picture))
    assert len(named) > 10
    assert sorted(path for path in named if not (ROOT / "sage" / path).exists()) == []


def test_the_page_has_a_line_for_each_of_ten_changes() -> None:
    table = PAGE.partition("| to add |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines()[2:]]
    assert [what.strip().split()[-1] for what, _, _ in rows] == [
        *("environment", "rule", "confidence", "divergence", "engine"),
        *("teacher", "records", "records", "launcher", "setting"),
    ]
    for what, write, listed in rows:
        assert _PATH.search(write + listed), what


def test_every_room_is_on_the_page() -> None:
    """The ground is files, the simulator and the plugins have their lines further down."""
    rooms = {name.replace(".", "/") for name in FLOORS if name not in ("ground", "hydra_plugins")}
    inside = {"sage/policy/models", "sage/policy/decoding", "sage/envs/alfworld/simulator"}
    for room in rooms - inside:
        assert f"`{room}/`" in PAGE or f"`{room}.py`" in PAGE, room
    assert all(f"`{room.rpartition('policy/')[2].rpartition('envs/')[2]}/`" in PAGE for room in inside)


def test_every_call_that_says_collective_is_on_the_page() -> None:
    said = []
    for name in ("processes", "sharding"):
        tree = ast.parse((ROOT / "sage" / "training" / f"{name}.py").read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        said += [f.name for f in functions if re.search(r"\bCollective\b", ast.get_docstring(f) or "")]
    assert {"all_reduce_sum", "full_tensor"} <= set(said)
    collective = PAGE.partition("## Which calls are collective")[2].partition("\n## ")[0]
    assert [name for name in said if not re.search(rf"[`.]{name}`", collective)] == []

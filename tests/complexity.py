"""How long, how wide and how tangled functions are: `python tests/complexity.py` lists what is past the
limits.

They hold for `sage/` and `analysis/` and what stands beside them in the wheel. `complexity_exceptions.toml`
has the functions that may pass them, each with its reason and how far; one that no longer needs its line must
lose it. Radon alone is needed, so that the lint job runs it too.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from radon.complexity import cc_visit

ROOT = Path(__file__).parent.parent
ROOMS = ("sage", "analysis", "pretrain", "tools", "sweeps/hydra_plugins")
EXCEPTIONS = Path(__file__).with_name("complexity_exceptions.toml")

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Size:
    """Of one function: lines from `def` to its end, parameters without self and cls, cyclomatic complexity
    (radon's, functions inside it included)."""

    lines: int = 60
    parameters: int = 8
    complexity: int = 15

    def beyond(self, limit: Size) -> dict[str, int]:
        """The measures that are larger than those of `limit`."""
        allowed = asdict(limit)
        return {name: value for name, value in asdict(self).items() if value > allowed[name]}


LIMIT = Size()


def sizes(source: str) -> Iterator[tuple[str, Size]]:
    """Every function of a module and its size, by the name within the module: `run`, `Search._tell`."""
    tree = ast.parse(source)
    tangled = {
        block.lineno: block.complexity
        for found in cc_visit(source)
        for block in (found, *getattr(found, "methods", ()))
        if block.letter != "C"
    }
    for name, node in _functions(tree, ""):
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        starred = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
        wide = len([one for one in named if one.arg not in ("self", "cls")]) + len(starred)
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        complexity = tangled.get(first, tangled.get(node.lineno, 0))
        yield name, Size((node.end_lineno or node.lineno) - node.lineno + 1, wide, complexity)


def _functions(node: ast.AST, within: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTION):
            yield within + child.name, child
        inner = f"{within}{child.name}." if isinstance(child, (*FUNCTION, ast.ClassDef)) else within
        yield from _functions(child, inner)


def exceptions() -> dict[str, Size]:
    """Functions that may pass the limits, by dotted name, and how far."""
    listed = tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8"))
    reasonless = [name for name, entry in listed.items() if not str(entry.get("reason", "")).strip()]
    if reasonless:
        raise ValueError(f"{EXCEPTIONS.name}: no reason is given for {', '.join(reasonless)}")
    return {
        name: Size(**{k: v for k, v in entry.items() if k != "reason"}) for name, entry in listed.items()
    }


def complaints(root: Path = ROOT) -> list[str]:
    """One sentence per function past the limits, and per exception that has become needless."""
    allowed, needed, found = exceptions(), set(), []
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            for name, size in sizes(path.read_text(encoding="utf-8")):
                dotted = f"{module}.{name}"
                if size.beyond(LIMIT):
                    needed.add(dotted)
                limit = allowed.get(dotted, LIMIT)
                past = ", ".join(
                    f"{value} {measure} (at most {getattr(limit, measure)})"
                    for measure, value in size.beyond(limit).items()
                )
                if past:
                    found.append(f"{dotted}: {past}")
    needless = sorted(set(allowed) - needed)
    unlist = f"within the limits, so {EXCEPTIONS.name} must not list it"
    return [*found, *(f"{name}: {unlist}" for name in needless)]


if __name__ == "__main__":
    lines = complaints()
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)

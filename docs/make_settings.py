"""Write docs/reference/settings.md from the settings classes, their docstrings and the defaults in conf/.

python docs/make_settings.py           # writes the page
python docs/make_settings.py --check   # exit code 1 where the page is not what this would write
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from generated import DOCS, inline, row, write_or_check
from omegaconf import OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sage.config.components import GROUPS, conf_dir, register_components
from sage.config.compose import compose
from sage.config.registry import Component
from sage.config.schema import NOT_A_RESULT, WITHOUT_EFFECT, WITHOUT_EFFECT_BESIDE, RunConfig
from sage.config.validate import validate

PAGE = DOCS / "reference" / "settings.md"
SEVERAL = ("method", "budget", "recipe", "study", "sweep")
"""Groups whose options set settings of other groups."""
LONG = 60
"""A text of more characters is not shown as a default; its file is named."""

HEAD = """\
# Settings

Written by `python docs/make_settings.py` from the settings classes, their docstrings and `conf/`; a test
keeps it current. Change those.

A setting is changed by `group.setting=value`, a whole group by `group=option`:
`python -m sage trainer.steps=5 confidence=margin`. `python -m sage --help` says what every option is,
`python -m sage --cfg job` what the line at hand comes to. The one home of default values is `conf/`.

- **default**: what `python -m sage` with nothing behind it runs; of the parts and environments, what their
  option brings. Another group's option (`method`, `budget`, `recipe`, a model of your own) may set more.
- **result**: `yes`: it can change a result, and is part of the run's id. `no`: it cannot, and the id does not
  see it. `id only`: part of the id, and yet no decision, weight, token or loss hangs on it, and why.
"""


def page() -> str:
    """The whole page."""
    register_components()
    config = _composed([])
    lines = [HEAD, "## Of the run itself", "", *_table(_own(config))]
    lines += ["## Groups that set several at once", "", *(f"- {_options(group)}" for group in SEVERAL), ""]
    for name in RunConfig.model_fields:
        if name in GROUPS:
            lines += _parts(name)
        elif isinstance(group := getattr(config, name), BaseModel):
            lines += [f"## {name}", "", _first(type(group)), "", _options(name), ""]
            lines += _table(_rows(group, name))
        if name == "tracking":
            lines += _loggers()
    return "\n".join(lines)


def _composed(overrides: Sequence[str]) -> RunConfig:
    """The config as `conf/` says it: `auto` stays `auto`."""
    return validate(OmegaConf.to_container(compose(overrides), resolve=True))


def _options(group: str) -> str:
    names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    return ", ".join(f"`{group}={name}`" for name in names)


def _parts(group: str) -> list[str]:
    """A group whose options are components, each with settings of its own."""
    lines = [f"## {group}", "", _options(group), ""]
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        part = getattr(_composed([f"{group}={path.stem}"]), group)
        lines += [f"### {group}={path.stem}", "", _first(type(part)), ""]
        if none := WITHOUT_EFFECT_BESIDE.get(f"{group}.{part.name}"):
            names = ", ".join(f"`{name.rstrip('.')}`" for name in none)
            lines += [f"Beside it these have no effect: {names}.", ""]
        rows = list(_rows(part, group, f"{group}.{part.name}"))
        lines += _table(rows) if rows else ["No settings.", ""]
    return lines


def _loggers() -> list[str]:
    """The loggers beside MLflow, each with what the option of its name brings."""
    lines = []
    for path in sorted((conf_dir() / "tracking").glob("*.yaml")):
        for label, logger in _composed([f"tracking={path.stem}"]).tracking.loggers.items():
            lines += [f"### Logger {label}", "", _first(type(logger)), ""]
            lines += _table(_rows(logger, f"tracking.loggers.{label}"))
    return lines


def _table(rows: Iterator[list[str]] | list[list[str]]) -> list[str]:
    head = [row(["setting", "default", "values", "result", "what it is"]), "|---|---|---|---|---|"]
    return [*head, *map(row, rows), ""]


def _own(config: RunConfig) -> Iterator[list[str]]:
    for name, info in RunConfig.model_fields.items():
        if name not in GROUPS and not isinstance(getattr(config, name), BaseModel):
            yield _row(name, getattr(config, name), info, name)


def _rows(thing: BaseModel, prefix: str, part: str = "") -> Iterator[list[str]]:
    """Every setting below `prefix`; `part` is what `WITHOUT_EFFECT` calls a component, where it is in one."""
    for name, info in type(thing).model_fields.items():
        value, dotted, declared = getattr(thing, name), f"{prefix}.{name}", f"{part or prefix}.{name}"
        if name == "name" and isinstance(thing, Component):
            continue
        if isinstance(value, Component):
            yield [f"`{dotted}`", f"`{value.name}`", f"any `{part.partition('.')[0]}`", "yes", _text(info)]
            yield from _rows(value, dotted, f"{part.partition('.')[0]}.{value.name}")
        elif isinstance(value, BaseModel):
            yield from _rows(value, dotted)
        elif isinstance(value, dict) and value and all(isinstance(v, BaseModel) for v in value.values()):
            yield from _named(value, dotted)
        else:
            yield _row(dotted, value, info, declared)
            if value is None and (kind := _optional(info.annotation)):
                yield from _brought(kind, prefix, name)


def _optional(annotation: Any) -> type[BaseModel] | None:
    """The class of a group of settings that may be absent."""
    kinds = [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return kinds[0] if kinds and type(None) in get_args(annotation) else None


def _brought(kind: type[BaseModel], prefix: str, name: str) -> Iterator[list[str]]:
    """Settings of a group that is absent by default, with the values of the first option that brings it."""
    for path in sorted((conf_dir() / prefix).glob("*.yaml")):
        option = f"{prefix}={path.stem}"
        brought = OmegaConf.to_container(compose([option])[prefix], resolve=True)[name]
        if brought is not None:
            rows = _rows(kind.model_validate(brought), f"{prefix}.{name}")
            yield from ([cells[0], f"{cells[1]} by `{option}`", *cells[2:]] for cells in rows)
            return
    raise LookupError(f"no option in conf/{prefix}/ brings {prefix}.{name}, so its settings have no default")


def _named(things: dict[str, BaseModel], prefix: str) -> Iterator[list[str]]:
    """Settings under names of the user's: once where all names have the same, else name by name."""
    if len({type(thing) for thing in things.values()}) > 1 or len(things) == 1:
        for name, thing in things.items():
            yield from _rows(thing, f"{prefix}.{name}")
        return
    for rows in zip(*(_rows(thing, f"{prefix}.<name>") for thing in things.values()), strict=True):
        defaults = [f"{name}: {cells[1]}" for name, cells in zip(things, rows, strict=True)]
        same = len({cells[1] for cells in rows}) == 1
        yield [rows[0][0], rows[0][1] if same else ", ".join(defaults), *rows[0][2:]]


def _row(name: str, value: Any, info: FieldInfo, declared: str) -> list[str]:
    return [f"`{name}`", _default(value), _values(info), _result(name, declared), _text(info)]


def _default(value: Any) -> str:
    text = inline(value)
    if len(text) > LONG or "\n" in text:
        return "in its YAML"
    return f"`{text}`" if text else "empty"


def _values(info: FieldInfo) -> str:
    """The type in words, with its bounds."""
    text = _kind(info.annotation)
    bounds = []
    for word, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        for rule in info.metadata:
            if (bound := getattr(rule, word, None)) is not None:
                bounds.append(f"{sign} {int(bound):,}" if bound == int(bound) else f"{sign} {bound:g}")
    return f"{text}, {', '.join(bounds)}" if bounds else text


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if kind is type(None) else _kind(kind) for kind in arguments)
    if origin in (list, tuple):
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "mapping"
    plain = {bool: "`true`, `false`", int: "integer", float: "number", str: "text"}
    return plain.get(annotation) or annotation.__name__


def _result(name: str, declared: str) -> str:
    if any(name == none or name.startswith(f"{none}.") for none in NOT_A_RESULT):
        return "no"
    reason = WITHOUT_EFFECT.get(declared) or WITHOUT_EFFECT.get(name)
    return f"id only: {reason}" if reason else "yes"


def _text(info: FieldInfo) -> str:
    return re.sub(r"\s+", " ", info.description or "").strip()


def _first(kind: type) -> str:
    """The first paragraph of a docstring, in one line."""
    return re.sub(r"\s+", " ", inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]).strip()


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page()))

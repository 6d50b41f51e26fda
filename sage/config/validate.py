"""Plain data to one `RunConfig`, its plugins imported first; what pydantic finds is one sentence."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sage.config.components import register_components
from sage.config.known import known_settings, nearest, unknown_setting
from sage.config.moved import modern
from sage.config.schema import RunConfig
from sage.errors import ConfigError
from sage.redaction import learn

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def validate(plain: Any) -> RunConfig:
    """`RunConfig` of plain data, its plugins imported first. Raises ConfigError."""
    if not isinstance(plain, Mapping):
        raise ConfigError(f"A config is a mapping of settings, not {type(plain).__name__}.")
    plain, notes = modern(plain)
    for note in notes:
        print(note, file=sys.stderr)
    learn(plain)
    register_components(plain.get("plugins") or ())
    try:
        return RunConfig.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation error in one sentence, and how many there are."""
    problems = error.errors()
    # An unknown key often explains a missing one, so it is told first.
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    more = f" ({len(problems) - 1} more after that.)" if len(problems) > 1 else ""
    text = _problem(first)
    return text + ("" if text.endswith(("?", ".")) else ".") + more


def _problem(problem: ErrorDetails) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return unknown_setting(where, known_settings())
    if kind == "missing":
        return f"The setting {where!r} is missing"
    if kind == "literal_error":
        expected = str(problem.get("ctx", {}).get("expected", ""))
        words = [w.strip("' ") for w in expected.replace(" or ", ",").split(",")]
        return f"{where}={value} is not one of {', '.join(words)}{nearest(str(value), words)}"
    if kind == "value_error":
        return str(problem.get("ctx", {}).get("error", problem["msg"]))
    if kind in ("list_type", "tuple_type") and isinstance(value, str):
        return f"{where}={value} is one value where a list is expected: write '{where}=[{value}]'"
    return f"{where}={value!r} is refused: {problem['msg'][:1].lower()}{problem['msg'][1:]}"

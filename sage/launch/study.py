"""Study files (`conf/study/`): declared method × environment × seed matrices, expanded to command lines.

A study is the union of its matrices; a matrix is the product of its axes. An axis is any setting or config
group with the list of its values. What is typed on the command line wins: `seed=0,1` replaces the axis of
that name in every matrix, and a setting that no matrix has is an axis more. `env=` chooses: an environment
that some matrix declares is run by those that do, and one that none declares by all of them.

Invariant: a run claims a frozen plan (`plan: <name>` in its matrix) only where it is the run that the study
declares; one that the command line made another (`trainer.steps=2`, `budget=smoke`) claims none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage.config.moved import renamed
from sage.config.schema import NOT_A_RESULT
from sage.errors import ConfigError

Value = bool | int | float | str | None
Overrides = list[str]

PLAN = "plan"
_HARMLESS = re.compile(rf"^\+*(hydra[./]|({'|'.join(map(re.escape, NOT_A_RESULT))})([.=]|$))")
"""Overrides that leave a run the run that was declared."""
_SELECTS = ("method", "env", "seed", "study")
"""Overrides that choose among the declared runs."""


class Study(BaseModel):
    """The `hydra.sweeper` section of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: str | None
    """Option of the group `budget` that the runs take unless one is typed; null takes none."""
    fixed: list[str]
    """Overrides of every run."""
    matrices: list[dict[str, list[Value] | str | None]] = Field(min_length=1)
    """Each maps settings to lists of values, and `plan` to the frozen plan that its runs serve."""


def read(section: Mapping[str, Any]) -> Study:
    """A validated study. Raises ConfigError with one sentence."""
    if "matrices" not in section:
        raise ConfigError("A study needs a file that declares its runs: study=<a file in conf/study/>.")
    try:
        study = Study.model_validate(dict(section))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(["hydra.sweeper", *map(str, problem["loc"])])
        if problem["type"] == "extra_forbidden":
            raise ConfigError(
                f"{where!r} is not a setting of a study file; those are {', '.join(Study.model_fields)}."
            ) from error
        raise ConfigError(f"{where} is refused: {problem['msg'][:1].lower()}{problem['msg'][1:]}.") from error
    for number, matrix in enumerate(study.matrices, 1):
        for key, values in matrix.items():
            if key == PLAN and isinstance(values, list):
                raise ConfigError(f"Matrix {number} of the study names several plans; a run serves one.")
            if key != PLAN and (not isinstance(values, list) or not values):
                raise ConfigError(f"Matrix {number} of the study: {key} needs a list of values.")
    return study


def expand(study: Study, arguments: Sequence[str]) -> tuple[list[Overrides], str]:
    """The overrides of every run, in the order of the file and each once, and a note for the user.

    `arguments` are the command line's overrides. Raises ConfigError.
    """
    given = _given(arguments)
    fixed = _fixed(study, given)
    strangers = [key for key in given if not _HARMLESS.match(key) and key not in _SELECTS]
    names_a_plan = "launch.plan" in given
    jobs: dict[tuple[str, ...], None] = {}
    undeclared: dict[str, None] = {}
    for matrix, axes in _chosen(study, given):
        plan = None if strangers or names_a_plan else matrix.get(PLAN)
        declared = _declared(matrix)
        for point in itertools.product(*axes.values()):
            new = [word for word in point if not _is_declared(word, declared)] if plan is not None else []
            undeclared |= dict.fromkeys(new)
            claim = [f"launch.plan={plan}"] if plan is not None and not new else []
            jobs[*fixed, *point, *claim] = None
    note = _without_plan(study, [] if names_a_plan else strangers, list(undeclared))
    return [list(job) for job in _without_repeats(jobs)], note


def _fixed(study: Study, given: Mapping[str, list[str]]) -> list[str]:
    """The overrides that every run of the study has, but for those that the line gives."""
    words = list(renamed(study.fixed)[0])
    if study.budget is not None:
        words.append(f"budget={study.budget}")
    return [word for word in words if word.partition("=")[0] not in given]


def _without_plan(study: Study, strangers: Sequence[str], undeclared: Sequence[str]) -> str:
    """Why runs of a planned study do not claim its plan; nothing where they do, or there is none."""
    plans = ", ".join(
        sorted({str(matrix[PLAN]) for matrix in study.matrices if matrix.get(PLAN) is not None})
    )
    if plans and strangers:
        return (
            f"These are not the runs that the study declares ({', '.join(strangers)} on the line), "
            f"so they do not claim its plan {plans}."
        )
    if undeclared:
        names = ", ".join(undeclared)
        return f"The study does not declare {names}, so those runs do not claim its plan {plans}."
    return ""


def _is_declared(word: str, declared: set[str]) -> bool:
    """Whether an override leaves a run the one that the matrix declares; the study's own name does."""
    return word in declared or word.startswith("study=") or bool(_HARMLESS.match(word))


def _declared(matrix: Mapping[str, Any]) -> set[str]:
    """Every override that the matrix itself names; its runs are all products of them."""
    return {
        word for key, values in matrix.items() if isinstance(values, list) for word in _words(key, values)
    }


_Axes = tuple[Mapping[str, Any], dict[str, list[str]]]


def _chosen(study: Study, given: Mapping[str, list[str]]) -> list[_Axes]:
    """Each matrix that the line leaves, with its axes as the line changes them."""
    every: list[_Axes] = [
        (matrix, {key: _words(key, values) for key, values in matrix.items() if isinstance(values, list)})
        for matrix in study.matrices
    ]
    declared = {word for _, axes in every for word in axes.get("env", [])}
    chosen: list[_Axes] = []
    for matrix, axes in every:
        kept = [w for w in given.get("env", []) if w not in declared or w in axes.get("env", [w])]
        if kept or "env" not in given:
            axes = axes | dict(given)
            chosen.append((matrix, axes | {"env": kept} if kept else axes))
    return chosen


def _without_repeats(jobs: Mapping[tuple[str, ...], None]) -> list[tuple[str, ...]]:
    """Where two matrices name the same run, the first one's: it may be the one with a plan."""
    seen: dict[frozenset[str], tuple[str, ...]] = {}
    for job in jobs:
        seen.setdefault(frozenset(word for word in job if not word.startswith("launch.plan=")), job)
    return list(seen.values())


def _given(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Key to its overrides, one for every value that was typed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            given[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            given[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(f"{override.input_line!r} is no list of values; a study takes a=1,2,3.")
    return given


def _words(key: str, values: Sequence[Value]) -> list[str]:
    """The overrides of one axis, under today's names."""
    return renamed([f"{key}={literal(value)}" for value in values])[0]


def literal(value: Value) -> str:
    """A value as Hydra's grammar writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)

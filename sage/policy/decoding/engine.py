"""Which engine decodes (`speed.engine`): the fastest one that is right for the model, or the one asked for.

Right means that its incremental decoding is the model's plain forward, to rounding: what plays is what
trains. It is measured once for each model of a process (`sage.policy.decoding.equivalence`), before anything
is played; an engine that was asked for by name and is not right is refused.
"""

from __future__ import annotations

from typing import Literal
from weakref import WeakKeyDictionary

from sage.errors import ModelError
from sage.policy.decoding.engines import FIXED, BuiltName, Engine, EngineName, build_engine, candidates
from sage.policy.decoding.equivalence import engine_error
from sage.policy.models.load import LanguageModel
from sage.policy.models.plain import Report

__all__ = ["Engine", "EngineName", "Who", "engine_report", "make_engine", "right_engine"]

Who = Literal["local", "vllm"]
"""Who samples: an engine of ours, or vLLM (`rollout.decoder`)."""

_measured: WeakKeyDictionary[object, dict[BuiltName, Report]] = WeakKeyDictionary()
"""What was found about the engines of each model of this process; training its weights changes nothing."""


def right_engine(lm: LanguageModel, name: EngineName = "auto") -> BuiltName:
    """`name`, or for `auto` the first of `candidates`, that decodes what the plain forward computes.

    Raises ModelError where it does not, or where none does.
    """
    for candidate in _asked(lm, name):
        report = _measure(lm, candidate)
        if report.equal:
            return candidate
    what = f"the model {lm.name!r} ({type(lm.model).__name__})"
    if name == "auto":
        raise ModelError(f"No engine plays {what} as it is trained: {report.finding()}; take another model.")
    raise ModelError(f"speed.engine={name} is not right for {what}: {report.finding()}; use auto.")


def engine_report(lm: LanguageModel, name: EngineName = "auto") -> Report:
    """What was found about the engine of that name; for `auto` about the one that it chooses, or, where none
    is right, the last one tried. Measured once for each model and engine of this process."""
    for candidate in _asked(lm, name):
        report = _measure(lm, candidate)
        if report.equal:
            break
    return report


def _asked(lm: LanguageModel, name: EngineName) -> tuple[BuiltName, ...]:
    return candidates(lm) if name == "auto" else (name,)


def _measure(lm: LanguageModel, name: BuiltName) -> Report:
    known = _measured.setdefault(lm.model, {})
    if name not in known:
        known[name] = engine_error(lm, name)
    return known[name]


def make_engine(
    lm: LanguageModel,
    slots: int,
    name: EngineName,
    *,
    rows: int | None = None,
    room: int | None = None,
    guesses: int = 0,
) -> Engine:
    """`build_engine` of the one that is right; raises what `right_engine` raises.

    rows: how many of the slots will be in use at a time; only an engine of fixed shapes makes the others.
    """
    right = right_engine(lm, name)
    if rows is not None and right not in FIXED:
        slots = min(slots, rows)
    return build_engine(lm, slots, right, room=room, guesses=guesses)

"""The names that settings have, and the sentence about one that has none: the nearest, or who has it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_origin

from pydantic import BaseModel

from sage.config.components import GROUPS
from sage.config.moved import new_name
from sage.config.schema import RunConfig


def unknown_setting(key: str, known: Iterable[str]) -> str:
    """The sentence about a key that is none of the `known` dotted names: the nearest one, or who has it."""
    if moved := new_name(key):
        return f"{key!r} is {moved!r} now"
    parent = key.rpartition(".")[0]
    if _takes_any_key(parent):
        return f"{key!r} is not there yet; {parent!r} takes any key, put in with a plus: +{key}=..."
    group, _, field = key.partition(".")
    owners = (
        [name for name in GROUPS[group].names() if field in GROUPS[group].get(name).model_fields]
        if group in GROUPS
        else []
    )
    if owners:
        has_it = " and ".join(f"{group}={owner}" for owner in owners)
        return f"{key!r} is not a setting of the chosen {group}; {has_it} has it"
    return f"{key!r} is not a setting{nearest(key, known)}"


def _takes_any_key(name: str) -> bool:
    """Whether the setting of this dotted name is a mapping that names no keys of its own."""
    kind: Any = RunConfig
    for part in name.split("."):
        fields = getattr(kind, "model_fields", {})
        if part not in fields:
            return False
        kind = fields[part].annotation
    return get_origin(kind) is dict


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known dotted name, else what there is beside it."""
    names = sorted(set(known))
    head, _, tail = word.rpartition(".")
    # The last part decides among its siblings: a long common prefix would make any two of them look alike.
    siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == head}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = [siblings[t] for t in difflib.get_close_matches(tail, siblings, n=1, cutoff=0.6)]
    if not close and not siblings:
        close = difflib.get_close_matches(word, names, n=1, cutoff=0.75)
    if not close:
        close = [anywhere[t] for t in difflib.get_close_matches(tail, anywhere, n=1, cutoff=0.75)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; {head} has {', '.join(sorted(siblings))}" if head and siblings else ""


def known_settings(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Dotted names of all settings; of a component group, those of all its registered components."""
    names: list[str] = []
    for field, info in model.model_fields.items():
        names.append(prefix + field)
        inner = [info.annotation]
        if not prefix and field in GROUPS:
            inner = [GROUPS[field].get(name) for name in GROUPS[field].names()]
        for kind in inner:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names += known_settings(kind, f"{prefix}{field}.")
    return names

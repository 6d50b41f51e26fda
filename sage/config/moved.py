"""Settings that have moved and options that are called otherwise now: old names are read for one release.

An old name among overrides is read with a note; that of an option also as a component's `name` in plain
data, and that of a setting that kept its group. In a file of options an old name is refused with the sentence
that says the new one.

Invariant: a run keeps its id. What is hashed has the names of identity version 1 (`as_hashed`), whatever the
options are called in a record or today, so that a run is found again and recipes of both agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

RENAMED = {"rollout.gold": "rollout.demonstration"}
"""Old dotted name to the new one of settings that stay in their group; they can be part of what is hashed."""

MOVED = {
    **RENAMED,
    "rollout.engine": "speed.engine",
    "rollout.vllm": "speed.vllm",
    "rollout.draft_tokens": "speed.draft_tokens",
    "rollout.judge_ahead": "speed.judge_ahead",
    "rollout.slots": "speed.slots",
    "rollout.workers": "speed.workers",
    "rollout.step_timeout_s": "speed.step_timeout_s",
    "trainer.micro_batch": "speed.micro_batch",
    "trainer.threads": "speed.threads",
    "trainer.checkpoint_every": "speed.checkpoint_every",
}
"""Old dotted name to the new one; what lies below it has moved along. What is not `RENAMED` is not hashed."""

OPTIONS = {"intervention": {"dealt": "permuted", "matched": "rate_matched", "explore": "randomized"}}
"""Group to the old names of its options and today's."""


class _Spelling(NamedTuple):
    """How options (by their group) and settings (dotted) are to be called."""

    options: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, str]


_Said = Callable[[str, str], None]
"""Is told of an old name and the new one."""
_NEW = _Spelling(OPTIONS, RENAMED)
_HASHED = _Spelling(
    {group: {new: old for old, new in names.items()} for group, names in OPTIONS.items()},
    {new: old for old, new in RENAMED.items()},
)


def new_name(key: str) -> str | None:
    """Today's name of a setting that has moved, None for any other."""
    return _renamed(key, MOVED)


def new_option(group: str, option: str) -> str | None:
    """Today's name of an option that was called otherwise, None for any other."""
    return OPTIONS.get(group, {}).get(option)


def renamed(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Command-line words under today's names, and a note for each that had an old one.

    `rollout.engine=vllm` chose who samples, which is `rollout.decoder` now.
    """
    now, notes = [], []
    for word in words:
        key, equals, value = word.partition("=")
        bare = key.lstrip("+~")
        new = new_name(bare) if not word.startswith("-") else None
        if bare == "rollout.engine" and "vllm" in value.split(","):
            new = "rollout.decoder" if value == "vllm" else None  # of several, the refusal says the new name
        group = bare.lstrip("/").partition("@")[0]
        if new is None and group in OPTIONS and not word.startswith("-"):
            value, said = _today(group, value)
            notes += said
        if new is None:
            now.append(key + equals + value)
            continue
        now.append(key[: len(key) - len(bare)] + new + equals + value)
        notes.append(_note(bare, new))
    return now, notes


def _today(group: str, value: str) -> tuple[str, list[str]]:
    """One option, or the options of a sweep, under today's names; and a note for each that had an old one."""
    notes = []
    words = value.split(",")
    for place, word in enumerate(words):
        if new := new_option(group, word.strip()):
            notes.append(_note(f"{group}={word.strip()}", f"{group}={new}"))
            words[place] = word.replace(word.strip(), new)
    return ",".join(words), notes


def _note(old: str, new: str) -> str:
    return f"{old} is {new} now; its old name is read for one release more."


def modern(plain: Any) -> tuple[Any, list[str]]:
    """Settings as plain data, nested or by dotted names, under today's names of settings and options; and a
    note for each that had an old one.

    A setting that is there under both its names keeps them: one of them was meant, and nobody says which.
    """
    notes: list[str] = []

    def said(old: str, new: str) -> None:
        notes.append(_note(old, new))

    return _spelt(plain, _NEW, said), notes


def modern_label(name: str) -> str:
    """What a run is called in tables (`sage.config.names`), with today's names of options and settings."""
    return _label(name, _NEW)


def as_hashed(plain: Any) -> Any:
    """Settings as plain data, nested or by dotted names, under the names that are hashed."""
    return _spelt(plain, _HASHED)


def label_as_hashed(name: str) -> str:
    """What a run is called in tables, under the names that are hashed."""
    return _label(name, _HASHED)


def _renamed(key: str, names: Mapping[str, str]) -> str | None:
    """The other name of a setting, or of one below it; None where `names` has none."""
    for old, new in names.items():
        if key == old or key.startswith(old + "."):
            return new + key.removeprefix(old)
    return None


def _spelt(
    data: Any,
    spelling: _Spelling,
    said: _Said = lambda *_: None,
    prefix: str = "",
) -> Any:
    """`data`, whose settings begin with `prefix`, with them, the names of components (`<group>.….name`)
    and the run's own as `spelling` has them."""
    if isinstance(data, Mapping):
        keys = {key: _key(key, data, spelling.settings, said, prefix) for key in data}
        return {
            keys[key]: _spelt(value, spelling, said, f"{prefix}{keys[key]}.") for key, value in data.items()
        }
    if not isinstance(data, str):
        return data
    if prefix == "name.":
        return _label(data, spelling)
    group = prefix.partition(".")[0]
    if prefix.endswith(".name.") and data in spelling.options.get(group, {}):
        new = spelling.options[group][data]
        said(f"{group}={data}", f"{group}={new}")
        return new
    return data


def _key(key: Any, beside: Mapping[Any, Any], names: Mapping[str, str], said: _Said, prefix: str) -> Any:
    """What a key is called by `names`; itself where what is `beside` it has that name already."""
    new = _renamed(f"{prefix}{key}", names)
    if new is None or new.removeprefix(prefix) in beside:
        return key
    said(f"{prefix}{key}", new)
    return new.removeprefix(prefix)


def _label(name: str, spelling: _Spelling) -> str:
    """`sage_opd+intervention=dealt`: what stands for an option or a setting in an automatic name."""
    for group, names in spelling.options.items():
        for old, new in names.items():
            name = re.sub(rf"(?<=\+)({group}(?:\.[a-z_.]*name)?=){old}(?=\+|\[|$)", rf"\g<1>{new}", name)
    for old, new in spelling.settings.items():
        name = re.sub(rf"(?<=\+){re.escape(old)}(?=[.=])", new, name)
    return name

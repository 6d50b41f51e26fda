"""Settings that have moved and options that are called otherwise now: old names are read for one release.

An old name among overrides is read with a note; the old name of an option also as a component's `name` in
plain data. In a file of options an old name is refused with the sentence that says the new one.

Invariant: a run keeps its id. What is hashed has the names of identity version 1 (`as_hashed`), whatever the
options are called in a record or today, so that a run is found again and recipes of both agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOVED = {
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
"""Old dotted name to the new one; what lies below it has moved along."""

OPTIONS = {"intervention": {"dealt": "permuted", "matched": "rate_matched", "explore": "randomized"}}
"""Group to the old names of its options and today's."""
_FORMER = {group: {new: old for old, new in names.items()} for group, names in OPTIONS.items()}


def new_name(key: str) -> str | None:
    """Today's name of a setting that has moved, None for any other."""
    for old, new in MOVED.items():
        if key == old or key.startswith(old + "."):
            return new + key.removeprefix(old)
    return None


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
        notes.append(f"{bare} is {new} now; its old name is read for one release more.")
    return now, notes


def _today(group: str, value: str) -> tuple[str, list[str]]:
    """One option, or the options of a sweep, under today's names; and a note for each that had an old one."""
    notes = []
    words = value.split(",")
    for place, word in enumerate(words):
        if new := new_option(group, word.strip()):
            notes.append(_note(group, word.strip(), new))
            words[place] = word.replace(word.strip(), new)
    return ",".join(words), notes


def _note(group: str, old: str, new: str) -> str:
    return f"{group}={old} is {group}={new} now; its old name is read for one release more."


def modern(plain: Any) -> tuple[Any, list[str]]:
    """Settings as plain data, nested or by dotted names, under today's names of options; and a note for each
    component that had an old one."""
    notes: list[str] = []

    def said(group: str, old: str, new: str) -> None:
        notes.append(_note(group, old, new))

    return _spelt(plain, OPTIONS, said), notes


def modern_label(name: str) -> str:
    """What a run is called in tables (`sage.config.names`), with today's names of options."""
    return _label(name, OPTIONS)


def as_hashed(plain: Any) -> Any:
    """Settings as plain data, nested or by dotted names, under the names that are hashed."""
    return _spelt(plain, _FORMER)


def _spelt(
    data: Any,
    spelling: Mapping[str, Mapping[str, str]],
    said: Callable[[str, str, str], None] = lambda *_: None,
    prefix: str = "",
) -> Any:
    """`data` with the names of components (`<group>.….name`) and the run's own as `spelling` has them."""
    if isinstance(data, Mapping):
        return {
            key: _spelt(value, spelling, said, f"{prefix}.{key}" if prefix else str(key))
            for key, value in data.items()
        }
    if not isinstance(data, str):
        return data
    if prefix == "name":
        return _label(data, spelling)
    group = prefix.partition(".")[0]
    if prefix.endswith(".name") and data in spelling.get(group, {}):
        new = spelling[group][data]
        said(group, data, new)
        return new
    return data


def _label(name: str, spelling: Mapping[str, Mapping[str, str]]) -> str:
    """`sage_opd+intervention=dealt`: what stands for an option in an automatic name."""
    for group, names in spelling.items():
        for old, new in names.items():
            name = re.sub(rf"(?<=\+)({group}(?:\.[a-z_.]*name)?=){old}(?=\+|\[|$)", rf"\g<1>{new}", name)
    return name

"""What a run is called in every table: its preset and what differs from it, or the `name` on the line.

`sage_opd+intervention=never+confidence=none` is the preset sage_opd with two of its parts changed. What
counts is what presets choose: the five parts of the loss and who plays what. Conditions of the experiment
(steps, models, environment, games) are no part of a name; `analysis` tells recipes apart that share one.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from sage.config.moved import as_hashed, label_as_hashed
from sage.config.plain import canonical_json, flatten

if TYPE_CHECKING:
    from sage.config.schema import RunConfig

AUTO = "auto"
PARTS = ("intervention", "confidence", "normalization", "divergence", "curriculum")
PLAY = ("rollout.player", "rollout.demonstration", "rollout.episodes_per_task")
"""What presets choose beside the parts."""
LONGEST = 100
"""Characters of a name; a longer one says how many settings differ, and a digest of them."""


def automatic_name(config: RunConfig) -> str:
    """The preset and each setting that is not what the preset makes it, in the order of the config."""
    preset = _preset(config.method)
    if preset is None:
        return config.method  # a preset that no file has: nothing to hold it against
    differing: dict[str, Any] = {}
    mine, theirs = _chosen(config), _chosen(preset)
    for part in PARTS:
        name = f"{part}.name"
        reference = theirs
        if mine[name] != theirs[name]:
            differing[part] = mine[name]
            option = _preset(config.method, f"{part}={mine[name]}")
            reference = _chosen(option) if option is not None else mine
        differing |= _differences(mine, reference, f"{part}.")
    for setting in PLAY:
        differing |= _differences(mine, theirs, setting)
    if not differing:
        return config.method
    words = [f"{key}={_short(value)}" for key, value in differing.items()]
    name = "+".join([config.method, *words])
    if len(label_as_hashed(name)) <= LONGEST:  # a longer name of a setting makes no other run
        return name
    digest = hashlib.sha256(canonical_json(as_hashed(differing)).encode()).hexdigest()[:6]
    return f"{config.method}+{len(words)} settings ({digest})"


def _chosen(config: RunConfig) -> dict[str, Any]:
    """What presets choose, by dotted name."""
    data = config.model_dump(mode="json")
    flat = flatten({part: data[part] for part in PARTS} | {"rollout": data["rollout"]})
    return {k: v for k, v in flat.items() if not k.startswith("rollout.") or k.startswith(PLAY)}


def _differences(mine: dict[str, Any], theirs: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Settings below `prefix` that are not theirs; the name of a part is said by the part."""
    return {
        key: value
        for key, value in mine.items()
        if key.startswith(prefix) and key != f"{prefix}name" and value != theirs.get(key, KeyError)
    }


def _short(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


@cache
def _preset(*overrides: str) -> RunConfig | None:
    """The config that `method=<overrides[0]>` and the other overrides make; None where there is none."""
    from sage.config.compose import compose_beside
    from sage.config.validate import validate
    from sage.errors import ConfigError

    try:
        return validate(compose_beside([f"method={overrides[0]}", *overrides[1:]]))
    except ConfigError:
        return None

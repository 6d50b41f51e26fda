"""Every setting of a config, by its dotted name, and for each another valid value: what the walk walks over.

Names come from the models themselves, so a new field is a name without a case, and the walk fails.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from sage.config.registry import Component
from sage.config.schema import RunConfig
from sage.config.validate import validate

PARTS = ("intervention", "confidence", "normalization", "divergence", "curriculum")
"""Groups of components whose every setting is looked at under every preset."""


@dataclass(frozen=True)
class Case:
    """Another valid value of a setting (or a function of the value it has), and settings that have to stand
    beside it, before and after, for it to matter at all."""

    value: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


def settings_of(thing: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting of a config; the name of a component is its group's choice."""
    for name in type(thing).model_fields:
        value = getattr(thing, name)
        if name == "name" and isinstance(thing, Component):
            continue
        if isinstance(value, BaseModel):
            yield from settings_of(value, f"{prefix}{name}.")
        elif isinstance(value, dict) and value and all(isinstance(v, BaseModel) for v in value.values()):
            for key, inner in value.items():
                yield from settings_of(inner, f"{prefix}{name}.{key}.")
        else:
            yield prefix + name, value


def known_name(config: RunConfig, name: str) -> str:
    """The name of a component's setting says which component: `confidence.drift.delta`."""
    group, _, rest = name.partition(".")
    if group not in PARTS:
        return name
    part: Any = getattr(config, group)
    while rest.startswith("rule."):
        part, rest = part.rule, rest.removeprefix("rule.")
    return f"{group}.{part.name}.{rest}"


def changed(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with other values of some settings. α and the teacher's temperature have one home: they are
    set in every rule inside the one named, as the config files do."""
    plain = config.model_dump(mode="json")
    for name, value in values.items():
        *parents, last = name.split(".")
        place = plain
        for parent in parents:
            place = place[parent]
        place[last] = value(copy.deepcopy(place[last])) if isinstance(value, Callable) else value  # type: ignore[arg-type]
        while last in ("weak_weight", "teacher_temperature") and "rule" in place:
            if last in place["rule"]:
                place["rule"][last] = place[last]
            place = place["rule"]
    return validate(plain)


def each(change: Callable[[float], float]) -> Callable[[Any], Any]:
    """The change of every number in nested lists."""

    def of(value: Any) -> Any:
        return [of(inner) for inner in value] if isinstance(value, list) else change(value)

    return of


ASKS = {"intervention.ask_below": 1.0}
BY_PLACE = {"intervention.scale": lambda old: [1e-3, *(1e3 for _ in old[1:])]}
"""A learned rule that looks at a turn's position alone."""
UNSURE = {"confidence.tau": 2.65}
"""Between the entropies of a random teacher, in nats."""

COMPONENT_CASES: dict[str, Case] = {
    **{
        f"intervention.{rule}.weak_weight": Case(0.2)
        for rule in ("judge", "permuted", "rate_matched", "randomized", "inverted", "oracle")
    },
    "intervention.learned.weak_weight": Case(0.2, {"intervention.intercepts": [0.0, 1e6, 0.0]}),
    "intervention.disagreement.weak_weight": Case(0.2, {"intervention.strong_at": 2.0}),
    "intervention.judge.sees_feedback": Case(False),
    "intervention.judge.max_new_tokens": Case(7),
    "intervention.permuted.by_turn": Case(False),
    "intervention.rate_matched.by_turn": Case(False),
    "intervention.randomized.epsilon": Case(0.9),
    "intervention.disagreement.weak_at": Case(1.2, {"intervention.strong_at": 2.0}),
    "intervention.disagreement.strong_at": Case(9.0),
    "intervention.learned.ask_below": Case(1.0),
    "intervention.learned.sees_feedback": Case(False, ASKS),
    "intervention.learned.max_new_tokens": Case(7, ASKS),
    "intervention.learned.turn_budget": Case(2, BY_PLACE),
    "intervention.learned.mean": Case(each(lambda x: x - 2), BY_PLACE),
    "intervention.learned.scale": Case(lambda old: [-1e-3, *(1e3 for _ in old[1:])], BY_PLACE),
    "intervention.learned.coefficients": Case(each(lambda x: -x), BY_PLACE),
    "intervention.learned.intercepts": Case([1e6, 0.0, 0.0]),
    **{f"confidence.{rule}.per": Case("token") for rule in ("top1", "entropy", "margin", "threshold")},
    **{
        f"confidence.{rule}.teacher_temperature": Case(0.5)
        for rule in ("top1", "entropy", "margin", "shuffled")
    },
    "confidence.threshold.teacher_temperature": Case(0.5),
    "confidence.threshold.signal": Case("entropy"),
    "confidence.threshold.tau": Case(0.1),
    "confidence.threshold.kind": Case("soft"),
    "confidence.threshold.softness": Case(0.9, {"confidence.kind": "soft"}),
    "confidence.entropy_aware.teacher_temperature": Case(0.05, UNSURE),
    "confidence.entropy_aware.bonus": Case(2.0, UNSURE),
    "confidence.entropy_aware.tau": Case(2.65),
    "confidence.entropy_aware.top_k": Case(2, UNSURE),
    "confidence.drift.epsilon": Case(0.5),
    "confidence.drift.delta": Case(0.01),
    **{
        f"normalization.{rule}.{name}": Case(value)
        for rule in ("all_token", "active_token", "matched_scale")
        for name, value in (("scope", "trajectory"), ("epsilon", 1000.0), ("z_max", 0.01))
    },
    "divergence.jsd.beta": Case(0.1),
    "divergence.mixture.forward_weight": Case(0.1),
    "divergence.top_k.k": Case(2),
    "divergence.top_k.kind": Case("forward_kl"),
    "divergence.top_k.beta": Case(0.1, {"divergence.kind": "jsd"}),
    "divergence.entropy_gated.tau": Case(9.0),
    "divergence.entropy_gated.top_k": Case(2),
    "divergence.sampled_token.estimator": Case("k3"),
    "divergence.sampled_token.gradient": Case("loss", {"divergence.estimator": "k2"}),
    **{f"divergence.{kind}.strength": Case(2.0) for kind in ("anchored", "extrapolated")},
    **{f"curriculum.{kind}.k_start": Case(3) for kind in ("tcod_f2b", "tcod_b2f")},
    **{f"curriculum.{kind}.eta": Case(3) for kind in ("tcod_f2b", "tcod_b2f")},
}
"""By `group.component.setting`."""

REFUSED = {
    "intervention.learned.features": Case(["position"]),
    "intervention.randomized.rates.skip": Case(0.9),
    "intervention.randomized.rates.weak": Case(0.9),
    "intervention.randomized.rates.strong": Case(0.9),
}
"""Settings that cannot be changed by themselves: another value is refused, not ignored."""

ELSEWHERE = {
    "intervention.randomized.rates.by_turn": "tests/objective/test_controls.py",
    "divergence.anchored.reference": "tests/objective/test_anchored.py",
    "divergence.extrapolated.reference": "tests/objective/test_anchored.py",
}
"""Settings whose effect is not one of the small batch; the tests that look at it."""

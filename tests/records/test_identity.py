"""Every setting is either a result or none, and what is none is said in one place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from sage.config.components import GROUPS, conf_dir
from sage.config.load import load
from sage.config.plain import canonical_json, flatten
from sage.config.registry import Component
from sage.config.schema import NOT_A_RESULT, SCHEMA_VERSION, RunConfig
from sage.records.identity import MANIFEST, Identity, recipe_of, recorded_settings
from sage.records.rundir import RunDir

OUTSIDE = Path(__file__).parents[1] / "outside" / "conf"
CHOICES = sorted(
    f"{path.parent.name}={path.stem}" for path in conf_dir().glob("*/*.yaml") if path.parent.name in GROUPS
)
"""Every option of the component groups: together they hold every registered component."""


@cache
def chosen(choice: str) -> RunConfig:
    return load([choice])


# Every field ----------------------------------------------------------------------------------------------


def changes(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, another value of the same kind) of every setting that `model` holds."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(model, Component) and name == "name":
            continue  # it chooses the class: another component (tested below)
        if isinstance(value, BaseModel):
            yield from changes(value, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}", other(value, field.annotation)
        if isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from changes(inner, f"{prefix}{name}.{key}.")


def other(value: Any, kind: Any) -> Any:
    """A value of the same kind that is not `value`."""
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list | tuple):
        return [*value, *(value[:1] or ["x"])]
    if isinstance(value, dict):
        return {**value, "one_more": next(iter(value.values()), "x")}
    assert value is None, f"the walk does not know how to change a {type(value).__name__}"
    return missing(kind)


def missing(kind: Any) -> Any:
    """Some value of an optional setting that is None."""
    (inner,) = [part for part in get_args(kind) if part is not type(None)]
    return {str: "x", int: 1, float: 1.0}.get(inner, "x")


def changed(model: Any, name: str, value: Any) -> Any:
    """A copy of `model` in which the setting of this dotted name is `value`; nothing else is validated."""
    head, _, rest = name.partition(".")
    if isinstance(model, dict):
        return model | {head: changed(model[head], rest, value)}
    return model.model_copy(update={head: changed(getattr(model, head), rest, value) if rest else value})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("choice", ["seed=0", *CHOICES])
def test_every_setting_changes_run_id_and_recipe_or_is_named_as_no_result(choice: str) -> None:
    """The whole config once, then every component's part of it."""
    config, group = chosen(choice), choice.partition("=")[0]
    run = Identity.of(config, "m")
    walked = set()
    for name, value in changes(config) if group == "seed" else changes(getattr(config, group), f"{group}."):
        one = Identity.of(changed(config, name, value), "m")
        none = any(name == head or name.startswith(f"{head}.") for head in NOT_A_RESULT)
        assert (one.digest == run.digest) == none, name
        assert (one.recipe == run.recipe) == (none or name == "seed"), name
        walked.add(name)
    unmet = [
        key
        for key in flatten(config.model_dump(mode="json"))
        if key.startswith(f"{group}.") or group == "seed"
        if not any(key == name or key.startswith(f"{name}.") for name in walked)
    ]
    assert all(key.endswith(".name") for key in unmet)  # the names of components: another one, below


def test_the_walk_meets_every_registered_component() -> None:
    met = {(group, getattr(chosen(c), group).name) for c in CHOICES for group in [c.partition("=")[0]]}
    assert {(group, name) for group, known in GROUPS.items() for name in known.names()
            if known.get(name).__module__.startswith("sage.")} <= met  # fmt: skip


def test_another_component_is_another_run() -> None:
    for group in GROUPS:
        options = [choice for choice in CHOICES if choice.startswith(f"{group}=")]
        digests = {Identity.of(chosen(option), "m").digest for option in options}
        assert len(digests) == len(options)


def test_the_games_and_the_version_are_part_of_the_identity_and_the_games_of_the_recipe() -> None:
    fields = load([]).digest_fields()
    run, games, version = Identity(fields, "m"), Identity(fields, "other"), Identity(fields, "m", 999)
    assert len({run.digest, games.digest, version.digest}) == 3
    assert games.recipe != run.recipe


# What a record says ---------------------------------------------------------------------------------------


def test_a_record_says_itself_what_is_no_result(run: RunDir, config: RunConfig) -> None:
    written = json.loads((run.path / "run.json").read_text())
    assert written["not_a_result"] == list(NOT_A_RESULT)
    assert written["schema_version"] == SCHEMA_VERSION
    assert recipe_of(recorded_settings(written)) == Identity.of(config, "f" * 64).recipe
    assert not {"tracking", "launch", "pretrain", "speed"} & set(written["fields"])
    # A record of somebody else's version is read by its own list, not by ours.
    theirs = written | {"not_a_result": ["trainer.steps"]}
    assert "trainer.steps" not in recorded_settings(theirs)
    assert "trainer.steps" in recorded_settings(written)


def test_a_config_alone_gives_the_same_settings_as_its_run_json(config: RunConfig) -> None:
    alone = recorded_settings({}, config.model_dump(mode="json"))
    assert alone | {MANIFEST: "m"} == recorded_settings(Identity.of(config, "m").to_json())
    assert recorded_settings({}) == {}
    assert recipe_of({}) == ""


def version_1(config: RunConfig, engine: str | None = None, **trainer: Any) -> dict[str, Any]:
    """The run.json that version 1 wrote for this config."""
    fields = config.digest_fields()
    fields.pop("name")
    fields["rollout"].pop("decoder")
    fields["rollout"] |= {"slots": 64, "step_timeout_s": 60.0} | ({"engine": engine} if engine else {})
    fields["trainer"] |= {"micro_batch": 8, "checkpoint_every": 0} | trainer
    if fields["trainer"]["log_skipped"]:
        fields["trainer"].pop("log_skipped")
    return {"digest": "d", "fields": fields, "manifest_digest": "m", "schema_version": 1}


def test_a_record_of_version_1_is_of_today_s_recipe_exactly_where_every_key_agrees() -> None:
    config = load([])
    mine = Identity.of(config, "m").recipe

    def recipe(old: dict[str, Any]) -> str:
        return recipe_of(recorded_settings(old))

    assert recipe(version_1(config)) == mine
    assert recipe(version_1(config, micro_batch=1)) == mine
    assert recipe(version_1(config, "hf")) == mine
    assert recipe(version_1(config, learning_rate=1.0)) != mine
    assert recipe(version_1(config, log_skipped=False)) != mine
    vllm = load(["rollout.decoder=vllm"])
    assert recipe(version_1(config, "vllm")) == Identity.of(vllm, "m").recipe != mine
    without_one = version_1(config)
    del without_one["fields"]["rollout"]["top_p"]  # a setting that came later
    assert recipe(without_one) != mine
    untouched = version_1(config)
    recorded_settings(untouched)
    assert untouched == version_1(config)


# Small things ---------------------------------------------------------------------------------------------


def test_flatten_keeps_lists_and_empty_mappings() -> None:
    assert flatten({"a": {"b": [1, {"c": 2}]}, "d": {}}) == {"a.b": [1, {"c": 2}], "d": {}}
    assert flatten({}) == {}


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


def test_runs_from_before_a_setting_was_added_keep_their_id() -> None:
    """Ids of the commit 7df62fc, for a manifest that is called m; a setting that came later is part of the
    identity as soon as it says something."""
    before = {"sage_opd": "8073076dd01e", "opd": "f156e6116e25", "sft": "1bf06136f4a9"}
    assert {m: Identity.of(load([f"method={m}"]), "m").run for m in before} == before
    changed = load(["student=hub_lora", "student.path=/somewhere", "teacher=hub", "teacher.path=/somewhere"])
    assert changed.digest_fields()["student"]["lora"]["rank"] == 16
    assert "lora" not in load([]).digest_fields()["student"]

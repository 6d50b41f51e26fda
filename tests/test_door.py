"""What can be typed is either used or refused in one sentence, before anything is loaded.

Every number has an upper bound and no number may be infinite; names are text; prompts are checked as they are
read. A walk over all settings finds one that was forgotten; a fuzzer of whole configs is in the slow tests.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sage.check.before import before_weights
from sage.config.components import GROUPS, register_components
from sage.config.load import load
from sage.config.schema import RunConfig
from sage.config.validate import validate
from sage.errors import ConfigError
from sage.launch.cli import _missing_folder

LONGEST = 400


Number = tuple[str, type[BaseModel], str]


def numbers(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Number]:
    """(dotted name for the message, class, field) of every numeric setting, of every registered component."""
    register_components()
    for field, info in model.model_fields.items():
        kinds: list[Any] = [info.annotation]
        if model is RunConfig and field in GROUPS:
            kinds = [GROUPS[field].get(name) for name in GROUPS[field].names()]
        for kind in kinds:
            parts = [kind, *typing.get_args(kind)]
            for part in parts:
                if isinstance(part, type) and issubclass(part, BaseModel):
                    yield from numbers(part, f"{prefix}{field}.")
            if any(part in (int, float) for part in parts):
                yield f"{prefix}{field}", model, field


def problems(model: type[BaseModel], field: str, value: Any) -> list[str]:
    """What the class says about this value of one field; other fields are left out and not asked about."""
    try:
        model.model_validate({field: value})
    except ValueError as error:
        return [p["msg"] for p in error.errors() if p["loc"] == (field,)]  # type: ignore[attr-defined]
    return []


def test_every_number_has_an_upper_bound_and_none_may_be_infinite() -> None:
    seen = {(model, field): name for name, model, field in numbers()}
    assert len(seen) > 90
    taken = [
        f"{name}={value} of {model.__name__}"
        for (model, field), name in seen.items()
        for value in (10**26, 1e300, float("inf"), float("nan"), -(10**26))
        if not problems(model, field, value)
    ]
    assert taken == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluation.limit=0"], "evaluation.limit"),
        (["evaluation.during_limit=0"], "evaluation.during_limit"),
        (["seed=9223372036854775808"], "seed"),
        (["seed=-1"], "seed"),
        (["prompt.style=nosuch"], "auto, react, short"),
        (["prompt.styles.react.stop='(['"], "no regular expression"),
        (["prompt.styles.short.action_pattern='Action'"], "no group"),
        (["prompt.styles.react.turn='{observatoin}'"], "its fields are admissible, observation"),
        (["prompt.styles.react.judge='{gaol}'"], "its fields are"),
        (["confidence=threshold", "confidence.tau=2"], "confidence.tau"),
        (["trainer.learning_rate=1e30"], "trainer.learning_rate"),
        (["evaluation.splits=[]"], "evaluation.splits"),
        (["evaluation.splits=[valid_seen,valid_seen]"], "more than once"),
        (["evaluation.splits=valid_seen"], "evaluation.splits"),
        (["env.generated.valid_unseen=1e26"], "env.generated.valid_unseen"),
        (["rollout.temperature=.inf"], "rollout.temperature"),
        (["trainer.clip_norm=.nan"], "trainer.clip_norm"),
        (["speed.step_timeout_s=inf"], "speed.step_timeout_s"),
        (["student.path=[a,b]"], "student.path"),
        (["student.path={a:1}"], "student.path"),
        (["env.name=[alfworld]"], "is no name"),
        (["confidence.name={a:1}"], "is no name"),
        (["launch.workers=99999999"], "launch.workers"),
        (["trainer=null"], "trainer"),
        (["plugins=nosuch"], "plugins"),
        (["plugins=[nosuch.module]"], "nosuch.module"),
    ],
)
def test_nonsense_is_refused_in_one_sentence_that_names_the_setting(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(words)
    text = str(refused.value)
    assert says in text
    assert len(text) <= LONGEST
    assert "\n" not in text.strip()


@pytest.mark.parametrize("content", [b"root:x:0:0", b"", None])
def test_a_judge_cache_that_cannot_be_opened_is_refused_before_weights_are_read(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "replies.sqlite"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    config = load([f"launch.judge_cache={file}"])
    if content == b"":  # SQLite takes an empty file for a new database
        assert list(before_weights(config))
        return
    with pytest.raises(ConfigError, match=r"launch\.judge_cache=.* cannot be opened"):
        list(before_weights(config))


def test_a_folder_of_groups_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for flag in (["--config-dir", f"{tmp_path}/nosuch"], [f"--config-dir={tmp_path}/nosuch"], ["-cd", ""]):
        assert "is no folder" in _missing_folder(flag)
    assert _missing_folder(["--config-dir", str(tmp_path), "--cfg", "job"]) == ""


@pytest.mark.parametrize("plain", [None, [], "x", 3, {"task": []}, {"env": 3}, {1: 2}])
def test_a_config_that_is_none_is_refused(plain: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        validate(plain)
    assert len(str(refused.value)) <= LONGEST


@pytest.mark.parametrize("setting", ["launch.runs_dir", "launch.judge_cache"])
def test_a_path_that_is_written_to_is_no_address(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"is a path on this machine, not an address"):
        load([f"{setting}='http://me:word@host/a'"])

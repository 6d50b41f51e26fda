"""Adapter folders as models, and further arguments of `from_pretrained`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage.config.load import load
from sage.config.schema import ModelSettings
from sage.errors import ConfigError, ModelError
from sage.policy.models.load import load_model


def settings(path: Path | str, **changes: object) -> ModelSettings:
    return load([]).teacher.model_copy(update={"path": str(path), **changes})


def test_model_kwargs_reach_from_pretrained_and_are_in_the_record() -> None:
    line = ["+teacher.model_kwargs.low_cpu_mem_usage=true", "+student.model_kwargs.device_map=cpu"]
    config = load(line)
    assert load_model(config.teacher).device.type == "cpu"
    student = load_model(config.student)
    assert student.device.type == "cpu"
    fields = config.digest_fields()
    assert fields["teacher"]["model_kwargs"] == {"low_cpu_mem_usage": True}


@pytest.mark.parametrize("name", ["dtype", "revision", "trust_remote_code", "output_loading_info"])
def test_what_has_a_setting_of_its_own_or_runs_code_is_no_further_argument(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model_kwargs\.{name} is refused"):
        load([f"+teacher.model_kwargs.{name}=x"])


def test_an_argument_that_transformers_does_not_know_is_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"could not be loaded \(TypeError: .*no_such_thing"):
        load_model(load(["+teacher.model_kwargs.no_such_thing=1"]).teacher)


def test_an_adapter_without_its_model_says_which_it_misses(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/nowhere/base"}))
    with pytest.raises(ModelError, match=r"belongs to '/nowhere/base'\. The folder '/nowhere/base' is not"):
        load_model(settings(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not name the model that it belongs to"):
        load_model(settings(tmp_path))
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(ModelError, match="belongs to another adapter"):
        load_model(settings(inner))

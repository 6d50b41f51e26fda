"""Names that settings had before they moved: read among overrides, refused in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sage.config.compose import compose
from sage.config.known import known_settings
from sage.config.load import load
from sage.config.moved import MOVED, renamed
from sage.config.validate import validate
from sage.errors import ConfigError
from tests.config.test_load import sage


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    known = set(known_settings())
    assert set(MOVED.values()) <= known
    assert not set(MOVED) & known


def test_an_old_name_on_the_line_becomes_the_new_one_and_that_is_said() -> None:
    words, notes = renamed(["-m", "rollout.slots=3,4", "+rollout.vllm.max_model_len=9", "seed=0"])
    assert words == ["-m", "speed.slots=3,4", "+speed.vllm.max_model_len=9", "seed=0"]
    assert [note.partition(";")[0] for note in notes] == [
        "rollout.slots is speed.slots now",
        "rollout.vllm.max_model_len is speed.vllm.max_model_len now",
    ]
    assert renamed(["speed.slots=3", "rollout.top_p=1"]) == (["speed.slots=3", "rollout.top_p=1"], [])


def test_the_old_engine_vllm_was_a_choice_of_who_samples() -> None:
    assert renamed(["rollout.engine=vllm"])[0] == ["rollout.decoder=vllm"]
    assert renamed(["rollout.engine=hf"])[0] == ["speed.engine=hf"]
    assert renamed(["rollout.engine=hf,vllm"]) == (["rollout.engine=hf,vllm"], [])


@pytest.mark.parametrize("old", ["trainer.micro_batch=2", "+trainer.micro_batch=2"])
def test_an_override_from_python_reads_an_old_name_and_says_so(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if old.startswith("+"):  # the plus is for what is not there yet, and the new name is
        with pytest.raises(ConfigError, match="micro_batch"):
            load([old])
    else:
        assert load([old]).speed.micro_batch == 2
    assert "trainer.micro_batch is speed.micro_batch now" in capsys.readouterr().err


def test_in_a_file_an_old_name_is_refused_with_the_new_one() -> None:
    plain = OmegaConf.to_container(compose([]), resolve=True)
    assert isinstance(plain, dict)
    plain["trainer"]["micro_batch"] = 2
    with pytest.raises(ConfigError, match=r"'trainer\.micro_batch' is 'speed\.micro_batch' now"):
        validate(plain)


def test_the_command_line_reads_an_old_name_and_says_so(tmp_path: Path) -> None:
    ended = sage("--cfg", "job", "trainer.threads=3", folder=tmp_path)
    assert ended.returncode == 0
    assert "threads: 3" in ended.stdout
    note = "trainer.threads is speed.threads now; its old name is read for one release more.\n"
    assert ended.stderr == note

"""The front door of Python does what the command line does with the same words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sage
from sage.config.load import load
from sage.errors import ConfigError, RunFailure
from sage.launch import execute as launched
from sage.launch.execute import Outcome

WORDS = ("method=opd", "trainer.steps=3", "seed=7")


def test_load_gives_the_config_of_the_same_words() -> None:
    assert sage.load(*WORDS) == load(WORDS)
    assert sage.load("student.path=x/y").student.path == "x/y"


def test_a_wrong_word_is_the_sentence_of_the_command_line() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        sage.load("methd=opd")


def test_a_run_that_failed_is_raised_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Outcome("failed", "id", None, "the disk is full", None, 1)
    monkeypatch.setattr(launched, "execute", lambda config: failed)
    with pytest.raises(RunFailure, match="the disk is full"):
        sage.execute(*WORDS)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a run has .*turns"):
        sage.table(tmp_path, "turn")
    with pytest.raises(FileNotFoundError, match="no folder of a run"):
        sage.table(tmp_path / "absent", "turns")


def test_the_import_is_light_and_knows_no_other_names() -> None:
    code = "import sage, sys; print({'torch', 'hydra', 'pydantic', 'pandas'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="'lod'"):
        sage.lod  # noqa: B018

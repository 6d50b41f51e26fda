"""`env: alfworld` of the config hands out tasks, environments and one digest over what is played."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from sage.envs.alfworld.settings import AlfworldSettings
from sage.envs.base import Environment
from sage.launch.claim import identify
from sage.settings import ConfigError, load

SMALL = ["env.generated.train=3", "env.generated.valid_seen=2", "env.generated.valid_unseen=2"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "settings-games"))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)


def settings(*overrides: str) -> AlfworldSettings:
    env = load([*SMALL, *overrides]).env
    assert isinstance(env, AlfworldSettings)
    return env


def test_tasks_and_a_playable_environment() -> None:
    env = settings()
    assert [len(env.tasks(split)) for split in ("train", "valid_seen", "valid_unseen")] == [3, 2, 2]
    task = env.tasks("train")[0]
    assert (task.env, task.source, task.split) == ("alfworld", "generated", "train")
    environment = pickle.loads(pickle.dumps(env)).make()
    assert isinstance(environment, Environment)
    assert environment.reset(task).observation.startswith("You are in the middle of a room.")
    assert environment.goal


def test_the_digest_is_of_the_games_that_are_played() -> None:
    env = settings()
    assert env.manifest_digest(["train"]) != env.manifest_digest(["train", "valid_seen"])
    assert env.manifest_digest(["train"]) != settings("env.generated.seed=1").manifest_digest(["train"])
    assert env.manifest_digest(["train"]) == settings("env.engine=textworld").manifest_digest(["train"])


def test_missing_data_is_one_sentence(tmp_path: Path) -> None:
    for wrong in (["env.games=official"], [f"env.data={tmp_path}"], ["evaluation.splits=[test]"]):
        with pytest.raises(ConfigError) as refused:
            identify(load([*SMALL, *wrong]))
        assert "\n" not in str(refused.value)

"""`env: alfworld` of the config hands out tasks, environments and one digest over what is played."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from sage.config.load import load
from sage.envs.alfworld.settings import AlfworldSettings
from sage.envs.alfworld.store import ensure_games
from sage.envs.base import Environment
from sage.errors import ConfigError
from sage.launch.claim import identify

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


def test_a_run_can_be_evaluated_on_games_of_another_source(tmp_path: Path) -> None:
    (own,) = ensure_games(0, {"train": 0, "valid_seen": 0, "valid_unseen": 1}).glob("**/game.tw-pddl")
    there = tmp_path / "json_2.1.1" / "valid_unseen" / own.parent.parent.name / "trial_T1"
    there.mkdir(parents=True)
    shutil.copy(own, there)
    env = settings("env.games=generated", f"env.data={tmp_path}")
    (task,) = env.tasks("official_valid_unseen")
    assert (task.source, task.split) == ("official", "official_valid_unseen")
    assert [t.source for t in env.tasks("valid_unseen")] == ["generated"] * 2
    both = ["train", "valid_unseen", "official_valid_unseen"]
    assert env.manifest_digest(both) != env.manifest_digest(both[:2])
    official = settings("env.games=official", f"env.data={tmp_path}")
    assert {t.source for t in official.tasks("generated_valid_unseen")} == {"generated"}


def test_missing_data_is_one_sentence(tmp_path: Path) -> None:
    for wrong in (["env.games=official"], [f"env.data={tmp_path}"], ["evaluation.splits=[test]"]):
        with pytest.raises(ConfigError) as refused:
            identify(load([*SMALL, *wrong]))
        assert "\n" not in str(refused.value)

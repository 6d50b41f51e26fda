"""ALFWorld as an `Environment`: same episode over both engines, faults as sentences."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.base import Environment, EnvironmentFault
from sage.episode import Failure, Task
from tests.envs.alfworld.kitchen import SENTENCE, write_kitchen

pytestmark = pytest.mark.skipif(find_spec("alfworld") is None, reason="its wheel holds domain and grammar")
needs_textworld = pytest.mark.skipif(find_spec("textworld") is None, reason="textworld is not installed")


@pytest.fixture
def task(tmp_path) -> Task:
    path = write_kitchen(tmp_path)
    return Task("kitchen", "alfworld", "test", "pick_heat_then_place_in_recep", "test", str(path))


@pytest.mark.parametrize("engine", ["native", pytest.param("textworld", marks=needs_textworld)])
def test_an_episode(task, engine):
    before = list(sys.argv)
    env = AlfworldEnvironment(engine)
    assert isinstance(env, Environment)
    step = env.reset(task)
    assert env.goal == SENTENCE
    # The room alone: without the package's banner, and without the task, which is `goal`.
    assert step.observation.startswith("You are in the middle of a room.")
    assert step.observation.endswith("and a sinkbasin 1.")
    assert sys.argv == before  # fast_downward writes there
    assert env.expert_distance() == 6
    step = env.step("eat apple 1")
    assert (step.failure, step.observation) == (Failure.NO_EFFECT, "Nothing happens.")
    turns = 0
    while not step.done and turns < 30:
        step = env.step(env.expert_action())
        assert step.failure is Failure.NONE
        turns += 1
    assert (step.won, step.score, env.expert_distance()) == (True, 1.0, 0)
    env.step("take apple 2 from sidetable 1")
    assert (env.reset(task).score, env.expert_distance()) == (0.0, 6)
    env.close()
    assert env.reset(task).admissible


def test_unknown_engine():
    with pytest.raises(ValueError, match="choose one of native, textworld"):
        AlfworldEnvironment("unity")


def test_textworld_that_is_not_installed_is_a_fault(task, monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(EnvironmentFault, match=r"use env\.engine=native"):
        AlfworldEnvironment("textworld").reset(task)


def test_a_step_before_reset_is_a_fault():
    with pytest.raises(EnvironmentFault, match="before reset"):
        AlfworldEnvironment().step("look")


@needs_textworld
def test_engines_that_differ_are_a_fault(task):
    env = AlfworldEnvironment("textworld")
    env.reset(task)
    env.world.state.toggled.add("desklamp 1")
    env.world.state.opened.add("fridge 1")
    with pytest.raises(EnvironmentFault, match="differ after 'go to fridge 1'"):
        env.step("go to fridge 1")


def test_importing_the_environment_imports_no_engine():
    code = (
        "import sys, sage.envs.alfworld.env\n"
        "print([name for name in ('torch', 'textworld', 'alfworld') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

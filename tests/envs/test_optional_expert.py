"""An environment has `reset`, `step`, `close` and a `goal`; each method of an expert is optional."""

from __future__ import annotations

import pytest

from sage.config.load import load
from sage.envs.base import Environment, ExpertMove, Step, expert_distance, expert_move
from sage.envs.pool import Advice, EnvFault, EnvPool, PoolStep
from sage.episode import Task
from sage.errors import ConfigError, EnvironmentFault

TASK = Task("bell/0", "bell", "train", "ring", "test")


class Bell:
    """Ring it."""

    goal = "ring the bell"

    def reset(self, task: Task) -> Step:
        return Step("A bell.")

    def step(self, action: str) -> Step:
        return Step("Ding.", done=True, won=action == "ring")

    def close(self) -> None: ...


class Shown(Bell):
    """Its expert plays and does not measure."""

    def expert_action(self) -> str | None:
        return "ring"


class Measured(Bell):
    """Its expert measures and does not play."""

    def expert_distance(self) -> int | None:
        return 1


def test_nothing_of_an_expert_is_demanded() -> None:
    assert isinstance(Bell(), Environment)
    assert expert_move(Bell()) is None
    assert expert_move(Measured()) is None
    assert expert_move(Shown()) == ExpertMove("", "ring")
    assert expert_distance(Measured()) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_game_without_an_expert_is_played_and_its_distances_are_empty(workers: int) -> None:
    with EnvPool(Bell, workers, 30.0) as pool:
        start = pool.reset_many([(0, TASK)])[0]
        assert isinstance(start, PoolStep)
        assert start.distance is None
        assert pool.advise_many([0])[0] == Advice(None)
        end = pool.step_many([(0, "ring")])[0]
    assert isinstance(end, PoolStep)
    assert (end.step.won, end.distance) == (True, None)


def test_a_distance_that_was_promised_and_is_not_there_is_a_fault_that_says_so() -> None:
    with pytest.raises(EnvironmentFault, match=r"Shown has no expert_distance\(\)"):
        expert_distance(Shown())
    with EnvPool(Shown, 0, 30.0, distances=True) as pool:
        fault = pool.reset_many([(0, TASK)])[0]
    assert isinstance(fault, EnvFault)
    assert "add the method, or have that return False" in fault.reason


def test_the_oracle_is_refused_at_the_door_where_distances_are_off() -> None:
    assert load(["intervention=oracle"]).intervention.needs_distances
    with pytest.raises(ConfigError, match=r"env=alfworld does not give here; set env.distances=true"):
        load(["intervention=oracle", "env.distances=false"])
    load(["intervention=oracle", "env.distances=false", "task=evaluate"])  # asks no rule

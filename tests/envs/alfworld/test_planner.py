"""The planner against brute force: exactly as short, from any state, and it says when there is no way."""

from __future__ import annotations

import random

import pytest

from sage.envs.alfworld.manifest import load_tasks, named_root
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.parse import parse_game
from sage.envs.alfworld.simulator.planner import NoPlan, is_won, plan, shortest_distance
from sage.envs.alfworld.simulator.world import Game, Goal, Receptacle, State, Thing
from tests.envs.alfworld.small_games import TASKS, random_game, search_distance


@pytest.mark.parametrize("task_type", TASKS)
def test_as_short_as_a_breadth_first_search(task_type: str) -> None:
    check_against_search(task_type, range(60))


@pytest.mark.slow
@pytest.mark.parametrize("task_type", TASKS)
def test_as_short_as_a_breadth_first_search_in_many_games(task_type: str) -> None:
    check_against_search(task_type, range(1000, 2000))


def check_against_search(task_type: str, seeds: range) -> None:
    reached = 0
    for seed in seeds:
        game = random_game(random.Random(f"{task_type} {seed}"), task_type)
        distance = shortest_distance(game, game.initial)
        assert distance == search_distance(game, 6 if distance is None else distance), seed
        world = NativeWorld(game)
        assert world.won() == is_won(game, game.initial)
        if distance is None:
            with pytest.raises(NoPlan):
                plan(game, game.initial)
            continue
        commands = plan(game, game.initial)
        assert len(commands) == distance
        for command in commands:
            assert world.apply(command) is not None, (seed, command)
        assert world.won()
        reached += distance > 2
    assert reached > len(seeds) // 6  # the games are not all trivial


def kitchen(**state: object) -> Game:
    """Two shelves at one place, a closed drawer, a fridge, a sink; a mug on a shelf, a pan in the drawer."""
    receptacles = [
        Receptacle("shelf 2", "shelf", "a", False), Receptacle("shelf 1", "shelf", "a", False),
        Receptacle("drawer 1", "drawer", "b", True), Receptacle("fridge 1", "fridge", "c", True),
        Receptacle("sinkbasin 1", "sinkbasin", "d", False),
    ]
    things = [
        Thing("mug 1", "mug", pickupable=True, cleanable=True, coolable=True),
        Thing("pan 1", "pan", pickupable=True, cleanable=True, coolable=True),
    ]
    settled: dict = {"location": "start", "inside": {"mug 1": "shelf 1", "pan 1": "drawer 1"}, **state}
    return Game(
        "", "put a cool mug in fridge", Goal("pick_cool_then_place_in_recep", "mug", "fridge"),
        {r.name: r for r in receptacles}, {t.name: t for t in things},
        frozenset({("fridge", "mug"), ("shelf", "mug"), ("shelf", "pan"), ("drawer", "pan")}),
        State(**settled),
    )


def test_a_plan_reads_as_one_would_do_it() -> None:
    game = kitchen()
    assert plan(game, game.initial) == [
        "go to shelf 1", "take mug 1 from shelf 1", "go to fridge 1", "cool mug 1 with fridge 1",
        "open fridge 1", "move mug 1 to fridge 1",
    ]


def test_what_is_in_hand_is_put_down_on_the_way() -> None:
    game = kitchen(holding="pan 1", inside={"mug 1": "shelf 1"})
    first = plan(game, game.initial)[:3]
    assert first == ["go to shelf 2", "move pan 1 to shelf 2", "take mug 1 from shelf 1"]


def test_what_is_done_is_not_done_again() -> None:
    game = kitchen(holding="mug 1", inside={}, cool={"mug 1"}, opened={"fridge 1"}, location="c")
    assert plan(game, game.initial) == ["move mug 1 to fridge 1"]
    won = kitchen(inside={"mug 1": "fridge 1"}, cool={"mug 1"})
    assert plan(won, won.initial) == []
    assert shortest_distance(won, won.initial) == 0


def test_no_way_out_is_said() -> None:
    lost = kitchen(holding="pan 1", inside={"mug 1": "shelf 1"})
    lost.can_contain = frozenset({("fridge", "mug")})
    assert shortest_distance(lost, lost.initial) is None
    with pytest.raises(NoPlan, match="put a cool mug in fridge"):
        plan(lost, lost.initial)


@pytest.mark.official
@pytest.mark.skipif(named_root() is None, reason="ALFWORLD_DATA names no official games")
def test_official_walkthroughs_are_as_long() -> None:
    for split in ("valid_seen", "valid_unseen"):
        for task in load_tasks("official", split):
            game = parse_game(task.path)
            assert shortest_distance(game, game.initial) == len(game.walkthrough), task.id

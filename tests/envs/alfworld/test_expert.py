"""The searching expert wins from text alone, recovers from mistakes, and keeps to its rules."""

from __future__ import annotations

import os
import random
from functools import cache

import pytest

from sage.envs.alfworld.simulator.expert import NOTHING, SearchingExpert, likely_places, listed_receptacles
from sage.envs.alfworld.simulator.generate import sample_games
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.planner import shortest_distance
from sage.envs.alfworld.simulator.world import Game, Goal
from sage.episode import Effect, Label, effect_of

SCENE = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you "
    "see a cabinet 2, a cabinet 1, a countertop 2, a countertop 1, a drawer 1, a fridge 1, a microwave 1, a "
    "shelf 1, and a sinkbasin 1.\n\nYour task is to: {}."
)


def expert_for(task_type: str, sentence: str, kind: str, target: str = "", lamp: str = "", count: int = 1
               ) -> SearchingExpert:
    return SearchingExpert(SCENE.format(sentence), sentence, Goal(task_type, kind, target, lamp, count))


@cache
def generated(count: int) -> tuple[Game, ...]:
    return tuple(game.game for split in ("train", "valid_unseen") for game in sample_games(split, 5, count))


def play(game: Game, budget: int, mistakes: float = 0.0, seed: int = 0) -> tuple[int | None, NativeWorld]:
    """Turns to the win, None where there was none; mistakes only in the first half."""
    rng = random.Random(seed)
    world = NativeWorld(game)
    outcome = world.reset()
    expert = SearchingExpert(outcome.observation, game.task_text, game.goal)
    for turn in range(1, budget + 1):
        command = expert.act()
        assert command == expert.act()
        assert 1 <= len(expert.thought().split()) <= 6
        if turn <= budget // 2 and rng.random() < mistakes:
            command = rng.choice([*outcome.admissible, "take it", "", "go to moon 1", "open cabinet"])
        outcome = world.step(command)
        expert.observe(command, outcome.observation)
        assert expert.holding == world.state.holding
        if outcome.won:
            return turn, world
    return None, world


def test_it_wins_generated_games() -> None:
    turns = [play(game, 100)[0] for game in generated(30)]
    assert None not in turns
    assert sum(turn is not None and turn <= 30 for turn in turns) / len(turns) > 0.9


def test_it_recovers_from_mistakes_wherever_that_is_possible() -> None:
    for seed, game in enumerate(generated(30)):
        turn, world = play(game, 160, mistakes=0.4, seed=seed)
        assert turn is not None or shortest_distance(game, world.state) is None


@pytest.mark.slow
@pytest.mark.official
@pytest.mark.skipif("ALFWORLD_DATA" not in os.environ, reason="ALFWORLD_DATA names no official games")
def test_it_wins_all_official_validation_games() -> None:
    from sage.envs.alfworld.manifest import load_tasks
    from sage.envs.alfworld.simulator.parse import parse_game

    tasks = [*load_tasks("official", "valid_seen"), *load_tasks("official", "valid_unseen")]
    turns = [play(parse_game(task.path), 100)[0] for task in tasks]
    assert len(turns) == 274
    assert None not in turns
    assert max(turn or 0 for turn in turns) <= 30


def test_the_search_follows_one_order_and_the_list() -> None:
    orders = likely_places().values()
    before = {(a, b) for places in orders for i, a in enumerate(places) for b in places[i + 1:]}
    assert not any((b, a) in before for a, b in before)
    expert = expert_for("pick_and_place_simple", "put some mug on shelf", "mug", "shelf")
    assert expert.receptacles == listed_receptacles(SCENE)
    assert (expert.thought(), expert.act()) == ("find mug", "go to countertop 2")
    expert.observe("go to countertop 2", "You arrive at countertop 2. On the countertop 2, you see nothing.")
    assert expert.act() == "go to countertop 1"
    expert.observe("go to cabinet 1", "You arrive at cabinet 1. The cabinet 1 is closed.")
    assert (expert.thought(), expert.act()) == ("find mug", "open cabinet 1")
    assert expert.searched_new
    inside = "The cabinet 1 is open. In it, you see a mug 3, and a cup 1."
    expert.observe("open cabinet 1", f"You open the cabinet 1. {inside}")
    assert (expert.thought(), expert.act()) == ("take mug 3", "take mug 3 from cabinet 1")


def test_a_task_with_two_objects_fills_one_receptacle_and_remembers() -> None:
    expert = expert_for("pick_two_obj_and_place", "put two mug in cabinet", "mug", "cabinet", count=2)
    for command, text in (
        ("go to countertop 2",
         "You arrive at countertop 2. On the countertop 2, you see a mug 2, and a mug 1."),
        ("take mug 2 from countertop 2", "You pick up the mug 2 from the countertop 2."),
        ("go to cabinet 1", "You arrive at cabinet 1. The cabinet 1 is closed."),
        ("open cabinet 1", "You open the cabinet 1. The cabinet 1 is open. In it, you see nothing."),
        ("move mug 2 to cabinet 1", "You move the mug 2 to the cabinet 1."),
    ):
        expert.observe(command, text)
    assert (expert.thought(), expert.act()) == ("take mug 1", "go to countertop 2")
    expert.observe("go to countertop 2", "You arrive at countertop 2. On the countertop 2, you see nothing.")
    assert expert.thought() == "find second mug"
    expert.observe("go to sinkbasin 1", "You arrive at sinkbasin 1. On the sinkbasin 1, you see a mug 5.")
    expert.observe("take mug 5 from sinkbasin 1", "You pick up the mug 5 from the sinkbasin 1.")
    assert (expert.thought(), expert.act()) == ("put mug 5 in cabinet", "go to cabinet 1")


def test_heating_is_undone_by_cooling_and_done_again() -> None:
    expert = expert_for("pick_heat_then_place_in_recep", "put a hot mug in shelf", "mug", "shelf")
    expert.observe("go to sinkbasin 1", "You arrive at sinkbasin 1. On the sinkbasin 1, you see a mug 1.")
    expert.observe("take mug 1 from sinkbasin 1", "You pick up the mug 1 from the sinkbasin 1.")
    assert (expert.thought(), expert.act()) == ("heat mug 1", "go to microwave 1")
    expert.observe("go to microwave 1", "You arrive at microwave 1. The microwave 1 is closed.")
    assert expert.act() == "heat mug 1 with microwave 1"
    expert.observe("heat mug 1 with microwave 1", "You heat the mug 1 using the microwave 1.")
    assert (expert.thought(), expert.act()) == ("put mug 1 in shelf", "go to shelf 1")
    expert.observe("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed.")
    expert.observe("cool mug 1 with fridge 1", "You cool the mug 1 using the fridge 1.")
    assert expert.thought() == "heat mug 1"


def test_a_wrong_object_is_put_down_here_if_it_can_be() -> None:
    expert = expert_for("pick_and_place_simple", "put some mug on shelf", "mug", "shelf")
    expert.observe("go to sinkbasin 1", "You arrive at sinkbasin 1. On the sinkbasin 1, you see a apple 1.")
    expert.observe("take apple 1 from sinkbasin 1", "You pick up the apple 1 from the sinkbasin 1.")
    assert (expert.thought(), expert.act()) == ("put down apple 1", "move apple 1 to sinkbasin 1")
    expert.observe("move apple 1 to sinkbasin 1", NOTHING)
    assert (expert.thought(), expert.act()) == ("put down apple 1", "go to countertop 2")


def test_a_receptacle_at_the_same_spot_is_looked_at() -> None:
    expert = expert_for("pick_and_place_simple", "put some mug on shelf", "mug", "shelf")
    expert.observe("go to countertop 2", "You arrive at countertop 2. On the countertop 2, you see nothing.")
    expert.observe("go to countertop 1", NOTHING)
    assert expert.act() == "examine countertop 1"


def test_the_lamp_is_used_where_it_was_seen() -> None:
    expert = expert_for("look_at_obj_in_light", "look at mug under the desklamp", "mug", lamp="desklamp")
    expert.observe("go to shelf 1", "You arrive at shelf 1. On the shelf 1, you see a desklamp 1.")
    expert.observe("go to sinkbasin 1", "You arrive at sinkbasin 1. On the sinkbasin 1, you see a mug 1.")
    expert.observe("take mug 1 from sinkbasin 1", "You pick up the mug 1 from the sinkbasin 1.")
    assert (expert.thought(), expert.act()) == ("use desklamp 1", "go to shelf 1")
    expert.observe("go to shelf 1", "You arrive at shelf 1. On the shelf 1, you see a desklamp 1.")
    assert expert.act() == "use desklamp 1"


def test_when_everything_was_seen_it_starts_over() -> None:
    expert = expert_for("pick_and_place_simple", "put some mug on shelf", "mug", "shelf")
    first = expert.act()
    for name in expert.receptacles:
        expert.observe(f"go to {name}", f"You arrive at {name}. On the {name}, you see nothing.")
    assert expert.act() == first


@pytest.mark.parametrize(("before", "after", "searched", "effect"), [
    (5, 4, False, Effect.PROGRESS), (1, 0, False, Effect.PROGRESS), (5, 5, False, Effect.NO_EFFECT),
    (5, 6, False, Effect.HARM), (5, None, False, Effect.HARM), (None, 4, False, Effect.PROGRESS),
    (None, None, False, None),
    (5, 5, True, Effect.PROGRESS), (5, 6, True, Effect.PROGRESS), (5, 8, True, Effect.HARM),
])
def test_the_oracle_reads_distances(before: int | None, after: int | None, searched: bool,
                                    effect: Effect | None) -> None:
    assert effect_of(before, after, searched=searched) is effect


def test_the_oracle_speaks_the_judges_words() -> None:
    assert [effect.label for effect in Effect] == [Label.SKIP, Label.WEAK, Label.STRONG]

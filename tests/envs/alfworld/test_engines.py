"""What a player reads in a kitchen made by hand, the same expectations for both engines."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from sage.envs.alfworld.simulator.native import NativeWorld, Outcome
from sage.envs.alfworld.simulator.parse import UncoveredGame, parse_game
from sage.envs.alfworld.simulator.world import Goal
from sage.envs.base import EnvironmentFault
from tests.envs.alfworld.kitchen import FACTS, GOAL, write_kitchen

pytestmark = pytest.mark.skipif(find_spec("alfworld") is None, reason="its wheel holds domain and grammar")
needs_textworld = pytest.mark.skipif(find_spec("textworld") is None, reason="textworld is not installed")

GO = ("cabinet 1", "cabinet 2", "countertop 1", "fridge 1", "microwave 1", "sidetable 1", "sinkbasin 1")
ALWAYS = ("help", "inventory", "look")


@cache
def real_engine():
    from sage.envs.alfworld.textworld_engine import TextWorldEngine

    return TextWorldEngine()


class Player:
    """Plays the kitchen on one of the engines and keeps the last outcome."""

    def __init__(self, engine: str, path: Path) -> None:
        if engine == "native":
            world = NativeWorld(parse_game(path))
            self.last, self._step = world.reset(), world.step
        else:
            self.last, self._step = real_engine().reset(path), real_engine().step

    def __call__(self, *commands: str) -> str:
        for command in commands:
            self.last = self._step(command)
        return self.last.observation

    @property
    def admissible(self) -> tuple[str, ...]:
        return self.last.admissible


@pytest.fixture(params=["native", pytest.param("textworld", marks=needs_textworld)])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Player:
    return Player(request.param, write_kitchen(tmp_path))


def go_except(*places: str) -> tuple[str, ...]:
    return tuple(f"go to {name}" for name in GO if name not in places)


def test_the_first_observation_lists_all_receptacles_in_descending_numbers(play):
    assert play.last == Outcome(
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, "
        "you see a cabinet 2, a cabinet 1, a countertop 1, a fridge 1, a microwave 1, a sidetable 1, and a "
        "sinkbasin 1.\n\nYour task is to: heat some apple and put it in sidetable.",
        go_except() + ALWAYS, 0.0, False, False, True,
    )


def test_look_in_mid_room_sees_nothing(play):
    assert play("look") == "You are in the middle of a room. Looking quickly around you, you see nothing."


def test_receptacles_that_share_a_location_are_faced_together_and_cannot_be_gone_to(play):
    assert play("go to cabinet 2") == "You arrive at cabinet 2. The cabinet 2 is closed."
    assert play("look") == "You are facing the cabinet 2, and cabinet 1. Next to it, you see nothing."
    assert play.admissible == (
        "examine cabinet 1", "examine cabinet 2", *go_except("cabinet 1", "cabinet 2"), *ALWAYS,
        "open cabinet 1", "open cabinet 2",
    )
    assert play("go to cabinet 1") == "Nothing happens."
    assert play("go to cabinet 2") == "Nothing happens."


def test_objects_are_numbered_against_the_order_of_their_ids_and_listed_with_a(play):
    # Apple_bar_1 is `apple 2`: it comes first in the list. "a apple" is the package's own grammar.
    assert play("go to countertop 1") == (
        "You arrive at countertop 1. On the countertop 1, you see a apple 2, a apple 1, a cup 1, a knife 1, "
        "and a mug 1."
    )
    assert play.admissible == (
        "examine countertop 1", *go_except("countertop 1"), *ALWAYS,
        *(f"take {name} from countertop 1" for name in ("apple 1", "apple 2", "cup 1", "knife 1", "mug 1")),
    )


@pytest.mark.parametrize("engine", ["native", pytest.param("textworld", marks=needs_textworld)])
def test_what_has_an_ability_but_no_place_takes_a_number_all_the_same(tmp_path, engine):
    # As in two official games: a cracked egg that can be picked up, has no type and lies nowhere.
    ghost = "Apple_bar_2_bar_AppleCracked_0"
    path = write_kitchen(tmp_path, f"{FACTS} (pickupable {ghost})")
    path.write_text(path.read_text().replace("Window_bar_1 - object", f"Window_bar_1 {ghost} - object"))
    play = Player(engine, path)
    assert "you see a apple 3, a apple 2, a cup 1" in play("go to countertop 1")
    assert "take apple 1 from countertop 1" not in play.admissible
    assert play("take apple 1 from countertop 1") == "Nothing happens."


def test_only_what_is_held_can_be_examined(play):
    play("go to countertop 1")
    assert play("examine apple 1") == "Nothing happens."
    assert play("take apple 1 from countertop 1") == "You pick up the apple 1 from the countertop 1."
    assert play("examine apple 1") == "There's nothing special about apple 1."
    assert play("take apple 2 from countertop 1") == "Nothing happens."
    assert play("inventory") == "You are carrying: a apple 1."


def test_a_cup_shows_its_content_for_ever(play):
    play("go to countertop 1", "take cup 1 from countertop 1")
    assert play("examine cup 1") == "This is a normal cup 1. In it, you see a spoon 1."


def test_opening_and_closing(play):
    play("go to fridge 1")
    assert play("close fridge 1") == "Nothing happens."
    assert play("open fridge 1") == "You open the fridge 1. The fridge 1 is open. In it, you see nothing."
    assert play("open fridge 1") == "Nothing happens."
    assert play("examine fridge 1") == "The fridge 1 is open. In it, you see nothing."
    assert play("close fridge 1") == "You close the fridge 1."
    assert play("examine fridge 1") == "The fridge 1 is closed."


def test_a_closed_microwave_heats_and_the_goal_can_be_won_and_lost(play):
    play("go to countertop 1", "take apple 2 from countertop 1")
    assert play("go to microwave 1") == "You arrive at microwave 1. The microwave 1 is closed."
    assert "move apple 2 to microwave 1" not in play.admissible
    assert play("heat apple 2 with microwave 1") == "You heat the apple 2 using the microwave 1."
    assert play("examine apple 2") == "This is a hot apple 2."
    assert play("go to sidetable 1") == "You arrive at sidetable 1. On the sidetable 1, you see a desklamp 1."
    assert (play.last.reward, play.last.done, play.last.won) == (0, False, False)
    assert play("move apple 2 to sidetable 1") == "You move the apple 2 to the sidetable 1."
    assert (play.last.reward, play.last.done, play.last.won) == (1, True, True)
    assert play("look") == "You are facing the sidetable 1. Next to it, you see nothing."
    assert (play.last.reward, play.last.done, play.last.won) == (1, True, True)
    play("take apple 2 from sidetable 1")
    assert (play.last.reward, play.last.done, play.last.won) == (0, False, False)


def test_states_of_an_apple(play):
    play("go to countertop 1", "take apple 1 from countertop 1", "go to sinkbasin 1")
    assert play("clean apple 1 with sinkbasin 1") == "You clean the apple 1 using the sinkbasin 1."
    assert play("examine apple 1") == "This is a clean apple 1."
    play("go to fridge 1", "cool apple 1 with fridge 1")
    assert play("examine apple 1") == "This is a cool and clean apple 1."
    play("go to microwave 1", "heat apple 1 with microwave 1")
    assert play("examine apple 1") == "This is a hot and clean apple 1."


def test_cold_is_the_word_for_what_is_only_cool(play):
    play("go to countertop 1", "take apple 1 from countertop 1")
    play("go to fridge 1", "cool apple 1 with fridge 1")
    assert play("examine apple 1") == "This is a cold apple 1."


def test_slicing_needs_a_knife_in_hand(play):
    play("go to countertop 1")
    assert not any(command.startswith("slice") for command in play.admissible)
    play("take knife 1 from countertop 1")
    assert play("slice apple 1 with knife 1") == "You sliced the apple 1 with the knife 1."
    play("move knife 1 to countertop 1", "take apple 1 from countertop 1")
    assert play("examine apple 1") == "This is a sliced apple 1."


def test_a_lamp_is_always_turned_on(play):
    play("go to sidetable 1")
    assert "use desklamp 1" in play.admissible
    assert "take desklamp 1 from sidetable 1" not in play.admissible
    assert play("use desklamp 1") == "You turn on the desklamp 1."
    assert play("use desklamp 1") == "You turn on the desklamp 1."


def test_what_is_in_two_places_stays_in_the_other(play):
    play("go to cabinet 2", "open cabinet 2", "take mug 1 from cabinet 2")
    assert play("go to countertop 1").endswith("a knife 1, and a mug 1.")
    assert "take mug 1 from countertop 1" not in play.admissible
    play("go to cabinet 1", "open cabinet 1", "move mug 1 to cabinet 1")
    play("go to countertop 1")
    assert play("take mug 1 from countertop 1") == "You pick up the mug 1 from the countertop 1."
    assert play("go to cabinet 1").endswith("In it, you see a mug 1.")


def test_what_came_back_to_a_location_lies_next_to_where_it_was_taken_from(play):
    play("go to cabinet 2", "open cabinet 2", "open cabinet 1", "take mug 1 from cabinet 2")
    assert play("look").endswith("Next to it, you see nothing.")
    play("move mug 1 to cabinet 1")
    assert play("look") == "You are facing the cabinet 2, and cabinet 1. Next to it, you see a mug 1."
    play("take mug 1 from cabinet 1", "move mug 1 to cabinet 2")
    assert play("look") == "You are facing the cabinet 2, and cabinet 1. Next to it, you see a mug 1."


def test_only_what_can_be_contained_is_moved(play):
    play("go to countertop 1", "take knife 1 from countertop 1", "go to sidetable 1")
    assert play("move knife 1 to sidetable 1") == "Nothing happens."


@pytest.mark.parametrize("command", [
    "", " ", "dance", "go to", "go to window 1", "go to countertop", "Go to countertop 1",
    "go to  countertop 1", "take apple 1 from countertop 1", "put apple 1 in/on sidetable 1",
    "open countertop 1", "look.", "use window 1",
])
def test_anything_else_does_nothing(play, command):
    before = play.admissible
    assert play(command) == "Nothing happens."
    assert not play.last.executed
    assert play.admissible == before


def test_surrounding_blanks_do_not_matter_and_help_has_no_leading_line(play):
    assert play("  inventory \n") == "You are not carrying anything."
    assert play("help").startswith("Available commands:\n  look:                             look around")
    assert play.last.observation.endswith("slice an object using a sharp object\n")


def test_parse(tmp_path):
    game = parse_game(write_kitchen(tmp_path))
    assert game.task_text == "heat some apple and put it in sidetable"
    assert game.goal == Goal("pick_heat_then_place_in_recep", "apple", "sidetable")
    assert list(game.receptacles) == ["cabinet 2", "cabinet 1", *GO[2:]]
    assert game.initial.inside["mug 1"] == "cabinet 2"
    assert game.initial.also_inside == {("mug 1", "countertop 1")}
    assert ("sidetable", "apple") in game.can_contain
    assert not game.things["window 1"].pickupable


@pytest.mark.parametrize(("change", "sentence"), [
    ({"facts": FACTS + "(holds agent1 Apple_bar_1)"}, "facts the native engine does not know: holds"),
    ({"goal": GOAL.replace("isHot", "isSliced")}, "none of the six"),
    ({"name": "pick_and_place_with_movable_recep-Apple-Cup-SideTable-1"}, "the alfworld package skips"),
    ({"name": "pick_heat_then_place_in_recep-AppleSliced-None-SideTable-1"}, "the alfworld package skips"),
])
def test_games_that_are_not_covered_are_refused_with_a_sentence(tmp_path, change, sentence):
    with pytest.raises(UncoveredGame, match=sentence):
        parse_game(write_kitchen(tmp_path, **change))


def test_another_domain_or_grammar_is_refused(tmp_path):
    path = write_kitchen(tmp_path)
    path.write_text(path.read_text().replace("You arrive at", "You are at"))
    with pytest.raises(UncoveredGame, match="another domain or text grammar"):
        parse_game(path)


def test_a_missing_or_broken_file_is_a_fault(tmp_path):
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        parse_game(tmp_path / "game.tw-pddl")
    (tmp_path / "game.tw-pddl").write_text("{}")
    with pytest.raises(EnvironmentFault, match="not an ALFWorld game file"):
        parse_game(tmp_path / "game.tw-pddl")

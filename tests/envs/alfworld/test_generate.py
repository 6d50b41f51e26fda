"""The generator: the same game for the same seed, in the official format, with floor plans kept apart."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from sage.envs.alfworld.simulator import generate
from sage.envs.alfworld.simulator.floorplans import UNSEEN_SCENES, load_floor_plans
from sage.envs.alfworld.simulator.generate import (
    SPLITS,
    TASK_MIX,
    GeneratedGame,
    name_entities,
    possible_goals,
    sample_game,
    sample_games,
)
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.parse import parse_game
from sage.envs.alfworld.simulator.world import Game

pytestmark = pytest.mark.skipif(find_spec("alfworld") is None, reason="its wheel holds the floor plans")


@pytest.fixture(scope="module")
def games() -> list[GeneratedGame]:
    return list(sample_games("train", seed=3, count=120))


def write(game: GeneratedGame, root: Path) -> Path:
    path = root / "json_2.1.1" / game.split / game.folder / game.trial / "game.tw-pddl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(game.as_json()))
    return path


def test_a_game_depends_on_seed_split_and_index_alone(games: list[GeneratedGame]) -> None:
    again = sample_game("train", 3, 77)
    assert again.as_json() == games[77].as_json()
    others = [sample_game("train", 4, 77), sample_game("train", 3, 78), sample_game("valid_seen", 3, 77)]
    assert all(other.as_json() != again.as_json() for other in others)


def test_the_first_game_has_not_changed() -> None:
    # A change here without a new GENERATOR_VERSION would mix two sets in one cache folder.
    game = sample_game("train", 0, 3)
    assert (generate.GENERATOR_VERSION, game.key) == (4, FIRST_KEY)
    assert game.game.walkthrough == FIRST_WALKTHROUGH


FIRST_KEY = "pick_two_obj_and_place-KeyChain-None-SideTable-328/trial_G0_000003"
FIRST_WALKTHROUGH = (
    "go to shelf 1",
    "take keychain 2 from shelf 1",
    "go to sidetable 1",
    "move keychain 2 to sidetable 1",
    "go to desk 1",
    "take keychain 1 from desk 1",
    "go to sidetable 1",
    "move keychain 1 to sidetable 1",
)


def test_all_six_task_types_occur_with_both_wordings(games: list[GeneratedGame]) -> None:
    found = Counter(game.household.goal.task_type for game in games)
    assert set(found) == set(TASK_MIX)
    assert all(game.folder.split("-")[0] == game.household.goal.task_type for game in games)
    assert len({game.sentence.split()[0] for game in games}) >= 6
    # Each sentence names the types of its folder.
    for game in games:
        _, thing, _, target, scene = game.folder.split("-")
        assert thing.lower() in game.sentence
        assert target.lower() in game.sentence
        assert int(scene) == game.household.plan.scene


def test_validation_floor_plans_stay_apart() -> None:
    scenes = {split: {g.household.plan.scene for g in sample_games(split, 0, 60)} for split in SPLITS}
    assert scenes["valid_unseen"] == set(UNSEEN_SCENES)
    assert not (scenes["train"] | scenes["valid_seen"]) & set(UNSEEN_SCENES)


def test_valid_seen_has_goals_of_train_in_other_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "SEEN_AMONG", 100)
    train = {game.folder: game for game in sample_games("train", 0, 100)}
    seen = list(sample_games("valid_seen", 0, 30))
    known = [game for game in seen if game.folder in train]
    assert len(known) >= 27  # a train game that was drawn twice may have kept its second goal
    assert all(game.household.objects != train[game.folder].household.objects for game in known)


def test_the_file_parses_to_the_game_in_memory(games: list[GeneratedGame], tmp_path: Path) -> None:
    for game in games[:40]:
        parsed = parse_game(write(game, tmp_path))
        direct = game.game
        for field in ("task_text", "goal", "receptacles", "things", "can_contain", "initial", "walkthrough"):
            assert getattr(parsed, field) == getattr(direct, field), (game.key, field)
        assert list(parsed.receptacles) == list(direct.receptacles)
        assert list(parsed.things) == list(direct.things)


def test_the_walkthrough_wins_and_nothing_is_done_before(games: list[GeneratedGame]) -> None:
    for game in games:
        world = NativeWorld(game.game)
        assert not world.reset().won
        outcomes = [world.step(command) for command in game.game.walkthrough]
        assert all(outcome.executed for outcome in outcomes)
        assert [outcome.won for outcome in outcomes] == [False] * (len(outcomes) - 1) + [True]


def test_households_make_sense(games: list[GeneratedGame]) -> None:
    for game in games:
        world: Game = game.game
        state, goal = world.initial, world.goal
        assert state.holding is None
        assert state.location not in {r.location for r in world.receptacles.values()}
        assert set(state.inside) <= set(world.things)
        assert set(state.inside.values()) <= set(world.receptacles)
        if goal.task_type in ("pick_and_place_simple", "pick_two_obj_and_place"):
            spots = [*state.inside.items(), *state.also_inside]
            kinds = {world.receptacles[r].type for name, r in spots if world.things[name].type == goal.object}
            assert goal.receptacle not in kinds
        if goal.task_type == "look_at_obj_in_light":
            assert goal.lamp == "desklamp"


def test_goals_fit_their_floor_plan() -> None:
    for scene, plan in load_floor_plans().items():
        kinds = {fixture.type for fixture in plan.fixtures}
        for task_type in TASK_MIX:
            for thing, goals in possible_goals(scene, task_type).items():
                assert thing in plan.object_types
                assert {goal.receptacle for goal in goals} <= kinds | {""}


def test_numbers_descend_with_the_lower_case_id() -> None:
    sink = "Sink|+00.10|+00.20|+00.30"
    names = name_entities(["Mug|+01.00|+00.50|+02.00", "Mug|-01.00|+00.50|+02.00", sink, f"{sink}|SinkBasin"])
    assert names == {
        "Mug|-01.00|+00.50|+02.00": "mug 2", "Mug|+01.00|+00.50|+02.00": "mug 1",
        sink: "sink 1", f"{sink}|SinkBasin": "sinkbasin 1",
    }


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="valid_unseen"):
        sample_game("test", 0, 0)


@pytest.mark.slow
def test_the_real_engine_plays_every_task_type_to_a_win(games: list[GeneratedGame], tmp_path: Path) -> None:
    textworld = pytest.importorskip("textworld")
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs.pddl import PddlEnv

    one_of_each = {game.household.goal.task_type: game for game in reversed(games)}
    assert len(one_of_each) == 6
    for game in one_of_each.values():
        path = write(game, tmp_path)
        env = AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)), shuffle=False)
        env.load(str(path))
        native, state = NativeWorld(parse_game(path)), env.reset()
        outcome = native.reset()
        assert state["feedback"].strip() == outcome.observation.strip()
        for command in game.game.walkthrough:
            assert command in state["admissible_commands"]
            state, _, _ = env.step(command)
            outcome = native.step(command)
            assert state["feedback"].strip() == outcome.observation.strip()
            assert tuple(sorted(set(state["admissible_commands"]))) == outcome.admissible
        assert state["won"]

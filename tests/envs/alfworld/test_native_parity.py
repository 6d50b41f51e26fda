"""The native engine against the real one, command by command: a few games here, many under `-m slow`."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from pretrain.alfworld_parity import Parity, compare

pytestmark = pytest.mark.skipif(
    find_spec("alfworld") is None or find_spec("textworld") is None,
    reason="the real engine, alfworld and textworld, is not installed",
)
needs_official = pytest.mark.skipif("ALFWORLD_DATA" not in os.environ, reason="ALFWORLD_DATA is not set")

TYPES = (
    "look_at_obj_in_light", "pick_and_place_simple", "pick_clean_then_place_in_recep",
    "pick_cool_then_place_in_recep", "pick_heat_then_place_in_recep", "pick_two_obj_and_place",
)


@cache
def real_engine():
    from sage.envs.alfworld.textworld_engine import TextWorldEngine

    return TextWorldEngine()


@cache
def generated() -> dict[str, object]:
    """One generated game of each task type."""
    from sage.envs.alfworld.simulator.generate import sample_games

    found: dict[str, object] = {}
    for game in sample_games("valid_unseen", 11, 200):
        found.setdefault(game.folder.split("-")[0], game)
        if len(found) == len(TYPES):
            break
    return found


def official(split: str, task_type: str, count: int) -> list[Path]:
    base = Path(os.environ["ALFWORLD_DATA"]) / "json_2.1.1" / split
    return sorted(base.glob(f"{task_type}-*/*/game.tw-pddl"))[:count]


def check(path: Path, steps: int, key: str) -> Parity:
    parity = compare(real_engine(), path, steps, key)
    assert not parity.differences
    assert parity.steps == steps
    return parity


@pytest.mark.parametrize("task_type", TYPES)
def test_generated_game(tmp_path, task_type):
    path = tmp_path / "game.tw-pddl"
    path.write_text(json.dumps(generated()[task_type].as_json()))
    check(path, 40, task_type)


@needs_official
@pytest.mark.official
@pytest.mark.parametrize("task_type", TYPES[::3])
def test_official_game(task_type):
    (path,) = official("valid_unseen", task_type, 1)
    check(path, 40, task_type)


@needs_official
@pytest.mark.official
@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "valid_seen", "valid_unseen"])
@pytest.mark.parametrize("task_type", TYPES)
def test_many_official_games(split, task_type):
    won = sum(check(path, 60, f"{split}/{path.parent.name}").won for path in official(split, task_type, 8))
    assert won > 0


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "valid_seen", "valid_unseen"])
def test_many_generated_games(tmp_path, split):
    from sage.envs.alfworld.simulator.generate import sample_games

    for index, game in enumerate(sample_games(split, 12, 20)):
        path = tmp_path / f"{index}.tw-pddl"
        path.write_text(json.dumps(game.as_json()))
        check(path, 60, game.key)


def test_a_difference_is_told(tmp_path):
    """The comparison is not blind: another wording is found at the first command that shows it."""
    path = tmp_path / "game.tw-pddl"
    path.write_text(json.dumps(generated()["pick_and_place_simple"].as_json()))

    class Altered:
        def reset(self, path):
            return self._altered(real_engine().reset(path))

        def step(self, command):
            return self._altered(real_engine().step(command))

        def _altered(self, outcome):
            return outcome._replace(observation=outcome.observation.replace("Nothing happens", "Nothing"))

    parity = compare(Altered(), path, 60, "altered")
    assert [difference[2:] for difference in parity.differences] == [
        ("observation", "Nothing.", "Nothing happens.")
    ]

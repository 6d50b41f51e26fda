"""Recorded gold plays as training text: slips say what the simulator says, judged turns the oracle's word."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from pretrain.corpora import find_corpus
from pretrain.plays import episode_sample, judge_samples, oracle_word
from pretrain.scienceworld import (
    NOT_UNDERSTOOD,
    ScienceWorldCorpus,
    plan,
    play_with_slips,
    recorded,
    renamed,
    thing_of,
)
from sage.config.load import load
from sage.config.prompt_texts import PromptStyle
from sage.envs.scienceworld import jvm
from sage.envs.scienceworld.actions import brief
from sage.envs.scienceworld.tasks import VARIATIONS, chosen, variations
from sage.policy.dialogue import Dialogue
from sage.policy.models.folder import resolve_path
from sage.policy.prompts import parse_answer

ROOT = Path(__file__).parents[2]
SHORT = PromptStyle(**yaml.safe_load((ROOT / "conf/prompt/scienceworld.yaml").read_text())["styles"]["short"])


@pytest.fixture(scope="module")
def dialogue() -> Dialogue:
    return Dialogue(AutoTokenizer.from_pretrained(resolve_path("sage://tiny-student/scienceworld")))


@pytest.fixture(scope="module")
def simulator() -> Iterator[jvm.Simulator]:
    pytest.importorskip("scienceworld")
    running = jvm.Simulator()
    yield running
    running.close()


def test_only_train_variations_are_learnt_from_and_every_task_is_there() -> None:
    assert set(recorded()) == set(VARIATIONS)
    for task, plays in recorded().items():
        assert len(plays) <= len(variations(task, "train"))
    assert sum(map(len, recorded().values())) >= 450


@pytest.mark.parametrize("task", ["find-animal", "power-component", "use-thermometer"])
def test_a_play_with_slips_is_what_the_simulator_says(simulator: jvm.Simulator, task: str) -> None:
    # The first recorded play is that of the first chosen train variation.
    variation = chosen(task, "train", 30)[0]
    done = play_with_slips(recorded()[task][0], SHORT, random.Random(4), 0.5, distances=False)
    assert any(turn.mistake for turn in done.turns)
    session = simulator.open()
    simulator.load(session, task, variation, "easy")
    assert brief(simulator.step(session, "look around")[0]) == done.turns[0].observation
    for turn in done.turns:
        assert parse_answer(SHORT, turn.answer) == (turn.thought, turn.action)
        text, score, _ = simulator.step(session, turn.action)
        if turn.mistake or turn.action.startswith("teleport"):
            assert brief(text) == turn.feedback
    assert score == 100


def test_thoughts_name_the_thing_of_the_next_step() -> None:
    assert thing_of("pick up metal pot") == "metal pot"
    assert thing_of("use thermometer in inventory on unknown substance B") == "thermometer"
    assert thing_of("focus on red box") == "red box"
    actions = ("teleport to kitchen", "look around", "pick up thermometer", "wait1")
    assert [plan(actions, i, "hallway: picture") for i in range(3)] == ["look", "look", "thermometer"]
    assert plan(actions, 0, "use the thermometer") == "thermometer"


def test_an_episode_weighs_the_gold_answers_only(dialogue: Dialogue) -> None:
    done = play_with_slips(recorded()["find-plant"][0], SHORT, random.Random(1), 0.4, distances=False)
    sample = episode_sample(done, dialogue, 0.0)
    full = [i for i, w in zip(sample.ids, sample.weights, strict=True) if w == 1.0]
    assert full == [t for turn in done.turns if not turn.mistake for t in dialogue.encode_answer(turn.answer)]


def test_renaming_is_one_to_one_and_holds_for_the_whole_play() -> None:
    for play in (recorded()["find-animal"][0], recorded()["use-thermometer"][3], recorded()["find-plant"][1]):
        other = renamed(play, random.Random(3))
        back: dict[str, str] = {}
        for old, new in zip(play.actions, other.actions, strict=True):
            assert back.setdefault(new, old) == old
        assert other.actions != play.actions
        # What the goal names is named alike by the actions.
        boxes = {a.split(" to ")[-1] for a in other.actions if a.startswith("move ") and a.endswith(" box")}
        assert boxes
        assert all(box in other.goal for box in boxes)


def test_the_box_of_a_find_task_may_be_in_any_room() -> None:
    play = recorded()["find-animal"][0]
    assert play.goal.endswith("in the kitchen")
    rooms = set()
    for seed in range(20):
        other = renamed(play, random.Random(seed))
        room = other.goal.split(" in the ")[-1]
        assert f"teleport to {room}" in other.actions
        assert "teleport to outside" in other.actions  # where the animals are
        rooms.add(room)
    assert len(rooms) >= 5


def test_judged_turns_carry_the_oracles_word(dialogue: Dialogue) -> None:
    words = set()
    for index in range(30):
        rng = random.Random(index)
        play = rng.choice(recorded()[rng.choice(sorted(recorded()))])
        done = play_with_slips(play, SHORT, rng, 0.5, distances=True)
        for turn in done.turns:
            if turn.mistake and turn.action.startswith("focus on") and turn.feedback != NOT_UNDERSTOOD:
                assert oracle_word(turn) == "STRONG"
        for sample in judge_samples(done, SHORT, dialogue, rng):
            answer = [i for i, w in zip(sample.ids, sample.weights, strict=True) if w == 1.0]
            words.add(dialogue.decode(answer))
    assert words == {"SKIP", "WEAK", "STRONG"}


def test_the_stream_is_the_same_every_time(dialogue: Dialogue) -> None:
    config = load(["env=scienceworld", "pretrain=scienceworld"])
    assert find_corpus(config.env) == ScienceWorldCorpus()

    def first(seed: int) -> list[list[int]]:
        made = ScienceWorldCorpus().samples(SHORT, dialogue, config.pretrain, seed)
        return [sample.ids for sample in itertools.islice(made, 12)]

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert all(len(ids) <= config.pretrain.max_tokens for ids in first(1))

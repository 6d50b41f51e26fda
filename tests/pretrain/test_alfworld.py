"""Expert play as training text says what was played, in a rollout's exact tokens, with honest weights."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from pretrain.alfworld import AlfworldCorpus, play, renumber
from pretrain.corpora import find_corpus
from pretrain.plays import episode_sample, judge_samples, oracle_word
from sage.config.load import load
from sage.config.prompt_texts import PromptStyle
from sage.envs.alfworld.simulator.generate import sample_game
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.policy.dialogue import Dialogue
from sage.policy.models.folder import resolve_path
from sage.policy.prompts import parse_answer

ROOT = Path(__file__).parents[2]
SHORT = PromptStyle(**yaml.safe_load((ROOT / "conf/prompt/alfworld.yaml").read_text())["styles"]["short"])


@pytest.fixture(scope="module")
def dialogue() -> Dialogue:
    return Dialogue(AutoTokenizer.from_pretrained(resolve_path("sage://tiny-student")))


def test_a_played_episode_replays_in_the_engine_turn_by_turn() -> None:
    game = sample_game("train", 77, 0).game
    done = play(game, SHORT, random.Random(0), 0.6, 40, distances=True)
    assert any(turn.mistake for turn in done.turns)
    world = NativeWorld(game)
    world.reset()
    for turn in done.turns:
        assert parse_answer(SHORT, turn.answer)[1] == turn.action or turn.mistake
        assert world.step(turn.action).observation == turn.feedback
    assert done.won == world.won()


def test_an_episode_weighs_the_experts_answers_only(dialogue: Dialogue) -> None:
    done = play(sample_game("train", 77, 1).game, SHORT, random.Random(1), 0.3, 40, distances=False)
    sample = episode_sample(done, dialogue, 0.1)
    full = [i for i, w in zip(sample.ids, sample.weights, strict=True) if w == 1.0]
    expected = [t for turn in done.turns if not turn.mistake for t in dialogue.encode_answer(turn.answer)]
    assert full == expected
    assert set(sample.weights) <= {0.0, 0.1, 1.0}
    # The conversation is what the dialogue makes of the same messages in a rollout.
    assert sample.ids[: len(dialogue.open("", done.turns[0].message))] == dialogue.open(
        "", done.turns[0].message
    )


def test_renumbering_deals_numbers_one_to_one_and_changes_nothing_else() -> None:
    game = sample_game("train", 77, 2).game
    done = play(game, SHORT, random.Random(2), 0.0, 40, distances=False)
    other = renumber(done, game, random.Random(3))
    pattern = re.compile(r"([a-z]+) (\d+)")
    mapping: dict[tuple[str, str], str] = {}
    for turn, new in zip(done.turns, other.turns, strict=True):
        for name in ("message", "answer", "action", "feedback"):
            before, after = getattr(turn, name), getattr(new, name)
            assert pattern.sub(r"\1 #", before) == pattern.sub(r"\1 #", after)
            for old, fresh in zip(pattern.findall(before), pattern.findall(after), strict=True):
                assert mapping.setdefault(old, fresh[1]) == fresh[1]
    named = [(kind, number) for (kind, _), number in mapping.items()]
    assert len(named) == len(set(named))
    assert any(old != new for (_, old), new in mapping.items())


def test_judged_turns_carry_the_oracles_word(dialogue: Dialogue) -> None:
    words = set()
    for index in range(30):
        done = play(
            sample_game("train", 78, index).game, SHORT, random.Random(index), 0.6, 15, distances=True
        )
        for turn in done.turns:
            effect = turn.after - turn.before
            assert oracle_word(turn) == ("SKIP" if effect < 0 else "WEAK" if effect == 0 else "STRONG")
        for sample in judge_samples(done, SHORT, dialogue, random.Random(index)):
            answer = [i for i, w in zip(sample.ids, sample.weights, strict=True) if w == 1.0]
            words.add(dialogue.decode(answer))
    assert words == {"SKIP", "WEAK", "STRONG"}


def test_the_stream_is_the_same_every_time(dialogue: Dialogue) -> None:
    def first(seed: int) -> list[list[int]]:
        settings = load(["pretrain.renumbered=0.5"]).pretrain
        made = AlfworldCorpus().samples(SHORT, dialogue, settings, seed)
        return [sample.ids for sample in itertools.islice(made, 12)]

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_an_environment_without_expert_play_is_refused_by_name() -> None:
    env = load([]).env
    assert find_corpus(env) == AlfworldCorpus()
    with pytest.raises(ValueError, match=r"env=dummy; pretrain\.dummy would have to make it"):
        find_corpus(env.model_copy(update={"name": "dummy"}))

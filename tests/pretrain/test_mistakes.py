"""Play with mistakes: what is said again, what is a mistake, and the very corpora of the shipped models."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest

from pretrain.corpora import find_corpus
from pretrain.mistakes import Move, Outcome, Transcript, play_with_mistakes
from pretrain.plays import PlayedTurn
from sage.config.load import load


class Stairs:
    """Ten steps up; a mistake goes down. The expert says how high it is."""

    stubborn = 1.0

    def __init__(self) -> None:
        self.at = 0

    def distance(self) -> int:
        return 10 - self.at

    def right(self) -> Move:
        return Move(f"at {self.at}", "up")

    def wrong(self, right: Move, played: list[PlayedTurn], rng: random.Random) -> Move:
        return Move(right.thought, f"down, after {len(played)} turns")

    def is_mistaken(self, right: Move, said: Move) -> bool:
        return said != right

    def step(self, action: str) -> Outcome:
        self.at += 1 if action == "up" else -1
        return Outcome(f"You are at {self.at}.", True, self.at == 10, self.at == 10)


def played(rate: float, turns: int = 200) -> tuple[list[PlayedTurn], bool]:
    style = load(["env=searchqa"]).prompt.styles["short"]
    into = Transcript(style, "A stair.", "Be on top.", write="{} > {}".format)
    return play_with_mistakes(Stairs(), into, random.Random(3), rate=rate, turns=turns)


def test_without_mistakes_the_expert_goes_straight() -> None:
    turns, won = played(0.0)
    assert won
    assert [turn.action for turn in turns] == ["up"] * 10
    assert [(turn.before, turn.after) for turn in turns] == [(10 - n, 9 - n) for n in range(10)]
    assert turns[3].answer == "at 3 > up"
    assert [turn.observation for turn in turns[:2]] == ["A stair.", "You are at 1."]
    assert "You are at 1." in turns[1].message
    assert not any(turn.mistake for turn in turns)
    assert played(0.0, turns=4)[1] is False


def test_a_mistake_is_marked_and_some_are_said_again() -> None:
    turns, won = played(0.2)
    assert won
    assert [turn.mistake for turn in turns] == [turn.action != "up" for turn in turns]
    again = [b.action == a.action for a, b in itertools.pairwise(turns) if a.mistake and b.mistake]
    assert any(again)
    assert not all(turn.mistake for turn in turns)
    assert all(turn.before < turn.after for turn in turns if turn.mistake)


CORPORA = {"alfworld": "48a405b35274", "scienceworld": "285a87ee4b02", "searchqa": "ee5e2413a399"}
"""First 12 hex digits of the sha256 of each corpus's first 60 texts, seed 5, at the commit 06d3e64: the draws
that made the shipped models."""


@pytest.mark.parametrize("env", CORPORA)
def test_the_corpora_are_those_of_the_shipped_models(env: str) -> None:
    config = load([f"env={env}"])
    texts = find_corpus(config.env).tokenizer_texts(config.prompt.styles["short"], 5)
    digest = hashlib.sha256("\n".join(itertools.islice(texts, 60)).encode()).hexdigest()
    assert digest[:12] == CORPORA[env]

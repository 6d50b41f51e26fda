"""One test for each part, against numbers worked by hand."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from own_parts.drawers import COMMANDS, DrawersSettings
from own_parts.rules import Cautious, Opening

from sage.episode import Failure
from sage.objective.confidence.base import TokenStats


def test_the_opening_is_supervised_and_the_rest_is_not() -> None:
    turns = [SimpleNamespace(turn=SimpleNamespace(index=index)) for index in range(4)]
    rule = Opening(name="opening", turns=2)
    assert [decision.weight for decision in rule.decide(turns, None, random.Random(0))] == [1, 1, 0, 0]


def test_a_turn_is_trusted_as_its_least_certain_token() -> None:
    top1 = torch.tensor([0.9, 0.3, 0.6])
    stats = TokenStats(top1, torch.zeros(3), torch.zeros(3), top1)
    assert Cautious(name="cautious", teacher_temperature=1.0).weigh(stats).tolist() == pytest.approx(
        [0.3] * 3
    )


def test_one_of_three_drawers_holds_the_key_and_other_words_do_nothing() -> None:
    settings = DrawersSettings(name="drawers", turn_budget=4, evaluation_splits=["test"], games=6)
    game = settings.make()
    tasks = settings.tasks("test")
    for task in tasks:
        game.reset(task)
        assert game.step("sing").failure is Failure.NO_EFFECT
        assert sum(game.step(command).won for command in COMMANDS) == 1
    assert len({task.sha256 for task in tasks}) == 6

"""A played episode as text and what is learnt from it: episodes and judged turns, in a rollout's exact ids.

Shared by every environment's corpus (`pretrain.corpora`); how an expert plays with mistakes is in
`pretrain.mistakes`. A mistake's own tokens carry no loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pretrain.train import Sample
from sage.episode import effect_of
from sage.policy.prompts import fill

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle
    from sage.policy.dialogue import Dialogue


@dataclass(slots=True)
class PlayedTurn:
    """One turn as text. `mistake`: not what the expert wanted. Distances are full-information steps."""

    message: str
    observation: str
    answer: str
    thought: str
    action: str
    feedback: str
    mistake: bool
    executed: bool
    before: int
    after: int


@dataclass(slots=True)
class Play:
    goal: str
    task_type: str
    turns: list[PlayedTurn]
    won: bool


def answer_text(thought: str, action: str) -> str:
    return f"Thought: {thought}\nAction: {action}"


def tokenizer_texts(play: Play, style: PromptStyle) -> Iterator[str]:
    """What a new tokenizer learns from a play: messages, answers and right labels, and a judge's query."""
    for turn in play.turns:
        yield turn.message
        yield turn.answer
        yield oracle_word(turn)
    yield fill(style.judge, **judge_fields(play, play.turns[-1], True))


def episode_sample(play: Play, dialogue: Dialogue, observation_weight: float) -> Sample:
    """The whole episode; weight 1 on the expert's answers, 0 on mistakes, `observation_weight` elsewhere."""
    ids: list[int] = []
    weights: list[float] = []
    for index, turn in enumerate(play.turns):
        given = dialogue.open("", turn.message) if index == 0 else dialogue.follow(turn.message, True)
        answer = dialogue.encode_answer(turn.answer)
        ids += given + answer
        weights += [observation_weight] * len(given) + [0.0 if turn.mistake else 1.0] * len(answer)
    weights[0] = 0.0
    return Sample(ids, weights)


def judge_fields(play: Play, turn: PlayedTurn, feedback: bool) -> dict[str, str]:
    """The fields of the judge's template, as `sage.teacher.judge` fills them."""
    return {
        "task_type": play.task_type,
        "goal": play.goal,
        "scene": play.turns[0].observation,
        "observation": turn.observation,
        "admissible": "",
        "answer": turn.answer,
        "thought": turn.thought,
        "action": turn.action,
        "feedback": turn.feedback if feedback else "",
    }


def oracle_word(turn: PlayedTurn) -> str:
    """SKIP where the turn made progress, WEAK where it changed nothing, STRONG where it did harm."""
    effect = effect_of(turn.before, turn.after)
    assert effect is not None
    return str(effect.label)


def judge_samples(play: Play, style: PromptStyle, dialogue: Dialogue, rng: random.Random) -> Iterator[Sample]:
    """Judged turns of one play, thinned so that the three words are about equally frequent."""
    for turn in play.turns:
        if not turn.executed or turn.before < 0 or turn.after < 0:
            continue
        word = oracle_word(turn)
        if rng.random() > {"SKIP": 0.2, "WEAK": 0.3, "STRONG": 1.0}[word]:
            continue
        prompt = fill(style.judge, **judge_fields(play, turn, rng.random() < 0.9))
        given, answer = dialogue.open(style.judge_system, prompt), dialogue.encode_answer(word)
        yield Sample(given + answer, [0.0] * len(given) + [1.0] * len(answer))

"""What is recorded token by token, of a sample of each step's episodes: `TokenScores`, filled in on the way.

Invariant: nothing here asks a model anything. What the teacher's pass, the confidence rule and the loss have
computed for every token anyway is kept for these, so that the tokens of a turn and its row agree.

Shape suffixes: T student tokens of one episode or turn, K likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from sage.episode import Episode, TokenScores, TrainingEpisode
from sage.objective.confidence.base import TokenStats
from sage.policy.decoding.answer import UNFINISHED, GrowingText
from sage.policy.seat import Job

LIKELIEST = 3
"""The teacher's words that are kept of each token."""


def wanted(jobs: Sequence[Job], episodes: int) -> frozenset[tuple[str, int]]:
    """(task, rollout) of the first `episodes` of a step's jobs, of all processes. Their order is that of a
    shuffled epoch, the same for every method of one seed."""
    return frozenset((job.task.id, job.rollout_index) for job in jobs[:episodes])


def sampled(episode: Episode, chosen: frozenset[tuple[str, int]]) -> TrainingEpisode:
    """The episode of a batch, with room for its tokens where it is one of the chosen."""
    is_chosen = (episode.task.id, episode.rollout_index) in chosen
    return TrainingEpisode(episode, tokens=TokenScores() if is_chosen else None)


def likeliest_wanted(sample: TrainingEpisode) -> int:
    """How many of the teacher's words are asked for at each of its tokens."""
    return LIKELIEST if sample.tokens is not None else 0


def note_teacher(sample: TrainingEpisode, stats: TokenStats, tokenizer: Any) -> None:
    """What the teacher's pass has said of an episode's tokens (`stats`: of all T)."""
    if sample.tokens is None:
        return
    episode, tokens = sample.episode, sample.tokens
    answers = [episode.token_ids[turn.answer_start : turn.answer_end] for turn in episode.turns]
    tokens.ids = [i for answer in answers for i in answer]
    tokens.text = [text for answer in answers for text in texts(answer, tokenizer)]
    tokens.teacher_logprob = known(stats.logprob_T)
    tokens.teacher_entropy = known(stats.entropy_T)
    tokens.top1 = known(stats.top1_T)
    if stats.likeliest_TK is not None and stats.likeliest_logprob_TK is not None:
        pairs = zip(stats.likeliest_TK.tolist(), stats.likeliest_logprob_TK.tolist(), strict=True)
        tokens.likeliest = [
            [(word(tokenizer, i), math.exp(p)) for i, p in zip(*one, strict=True) if i >= 0] for one in pairs
        ]


def note_confidence(
    sample: TrainingEpisode, by_turn: Sequence[Tensor | None], lengths: Sequence[int]
) -> None:
    """c at each token of each turn, None where it was not computed."""
    if sample.tokens is not None:
        sample.tokens.confidence = [
            value
            for values_T, length in zip(by_turn, lengths, strict=True)
            for value in ([None] * length if values_T is None else known(values_T))
        ]


def note_student(sample: TrainingEpisode, by_turn: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
    """What the student's pass has computed, turn by turn: log-probabilities, entropies, divergences; NaN
    where it has not."""
    if sample.tokens is None:
        return
    tokens = sample.tokens
    for logprob_T, entropy_T, divergence_T in by_turn:
        tokens.student_logprob += known(logprob_T)
        tokens.student_entropy += known(entropy_T)
        tokens.divergence += known(divergence_T)


def note_weights(sample: TrainingEpisode, effective_T: Tensor) -> None:
    """Z s of each token."""
    if sample.tokens is not None:
        sample.tokens.weight = known(effective_T)


def known(values_T: Tensor) -> list[float | None]:
    """As plain numbers; None for what is NaN."""
    return [None if math.isnan(x) else x for x in values_T.double().tolist()]


def texts(answer: Sequence[int], tokenizer: Any) -> list[str]:
    """The text of each token of one answer: joined they are its text, but for special tokens, which have
    their names. A character of several tokens stands with its last."""
    growing, special = GrowingText(tokenizer), set(tokenizer.all_special_ids)
    pieces: list[str] = []
    shown = now = ""
    for token in answer:
        now = growing.add(token)
        if token in special:
            pieces.append(str(tokenizer.convert_ids_to_tokens(token)))
        elif now.endswith(UNFINISHED):
            pieces.append("")
        else:
            pieces.append(now[len(shown) :])
            shown = now
    if pieces and now != shown:  # the answer was cut in the middle of a character
        pieces[-1] += now[len(shown) :]
    return pieces


@lru_cache(maxsize=100_000)
def word(tokenizer: Any, token: int) -> str:
    """The text of one token by itself, with the blank that it begins with."""
    name = str(tokenizer.convert_ids_to_tokens(token))
    if token in tokenizer.all_special_ids:
        return name
    text = str(tokenizer.decode([token]))
    return f" {text}" if name.startswith("\u2581") and not text.startswith(" ") else text

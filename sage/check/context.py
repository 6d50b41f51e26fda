"""Does a whole game fit: the expert's games in the student's own tokens against `rollout.max_context`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from sage.check.page import Line, fine, refused, warning

if TYPE_CHECKING:
    from sage.check.pair import Subject
    from sage.episode import Episode

GAMES = 100
"""Games a split, so that one in a hundred can be seen."""
BATCH = 10
SECONDS = 8.0
"""A split is measured for about so long; the line says how many games that were."""
MOST_CUT = 0.01
UNLIMITED = 1 << 40


def context(subject: Subject) -> Iterator[Line]:
    """One line a split: opening, tokens a turn, longest game, and the share that the limit would cut."""
    from sage.run import training_settings

    how = training_settings(subject.config, subject.style, subject.student)
    limit, asked = how.max_context, subject.config.rollout.max_context
    if limit < asked:
        yield fine(
            f"rollout.max_context={asked:,} is above the student's reach; {limit:,} tokens are the limit."
        )
    for split in dict.fromkeys(["train", *subject.config.evaluation.splits]):
        games = _expert_games(subject, split)
        won = [e for e in games if e.won]
        if not won:
            why = next((e.error for e in games if e.error), "it has won none")
            yield warning(f"{split}: no expert game to measure by ({why[:160].rstrip('.')}).")
            continue
        yield _measured(split, won, limit)


def _measured(split: str, won: Sequence[Episode], limit: int) -> Line:
    openings = [e.turns[0].answer_start for e in won]
    longest = max(len(e.token_ids) for e in won)
    turns = [(len(e.token_ids) - e.turns[0].answer_start) / len(e.turns) for e in won]
    cut = sum(len(e.token_ids) > limit for e in won)
    text = (
        f"{split}: {len(won)} games won by the expert: opening up to {max(openings):,} tokens, "
        f"{median(turns):.0f} a turn, longest game {longest:,}"
    )
    if cut / len(won) > MOST_CUT:
        return refused(
            f"{text}; rollout.max_context (or the model's reach) of {limit:,} would cut {cut} of them, "
            f"{cut / len(won):.0%}: raise it above {longest:,}, or choose a shorter prompt.style."
        )
    return fine(f"{text}, limit {limit:,}.")


def _expert_games(subject: Subject, split: str) -> list[Episode]:
    """Up to `GAMES` games of the split, played by the expert without a limit of tokens."""
    from contextlib import ExitStack

    from sage.envs.manifest import spread
    from sage.policy.dialogue import Dialogue
    from sage.policy.openings import ExpertAnswers
    from sage.policy.rollout import Job, play
    from sage.run import training_settings

    how = replace(
        training_settings(subject.config, subject.style, subject.student), max_context=UNLIMITED, slots=BATCH
    )
    jobs = [Job(task) for task in spread(subject.config.env.tasks(split), GAMES)]
    games: list[Episode] = []
    started = time.perf_counter()
    with ExitStack() as stack:
        pool = subject.pool(stack)
        dialogue = Dialogue(subject.student.tokenizer, subject.student.thinking)
        answers = ExpertAnswers(pool, subject.style, dialogue)
        for at in range(0, len(jobs), BATCH):
            games += play(subject.student, pool, jobs[at : at + BATCH], how, opening=answers)
            if time.perf_counter() - started > SECONDS or not any(e.won for e in games):
                break
    return games

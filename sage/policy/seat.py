"""One episode that is being played: what an answer makes of it, and what the environment says to that.

An episode whose next turn has no room in `max_context` ends `context_full`. An answer that the limit would
cut off is no answer: nothing of that turn is kept, so that no half sentence is executed, judged or trained
on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sage.envs.pool import EnvFault, PoolStep
from sage.episode import Episode, Failure, Status, Task, Turn
from sage.errors import ConfigError
from sage.policy.decoding.answer import Reply
from sage.policy.dialogue import Dialogue
from sage.policy.prompts import first_message, parse_answer, turn_message
from sage.policy.slips import format_slip

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play. `last_turns`: a curriculum leaves the student only so many at the end of what the
    teacher would play; None leaves it the whole episode."""

    task: Task
    rollout_index: int = 0
    last_turns: int | None = None


End = tuple[Status, str]
"""How an episode ended, and the sentence that says why where it is not ok."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Answers of an episode, its tokens, and tokens of one answer."""

    turn_budget: int
    max_context: int
    max_new_tokens: int


@dataclass(slots=True, eq=False)
class Seat:
    """An episode that is being played, its slot of the pool, and its row of the decoder while it has one.

    reading: what the environment said last. message: the question that is answered next. reply: the last
    answer. answering: the next one is being decoded; asked: the environment is executing the last one.
    """

    index: int
    job: Job
    slot: int
    episode: Episode
    reading: PoolStep
    message: str
    reply: Reply | None = None
    row: int | None = None
    answering: bool = False
    asked: bool = False
    started: float = field(default_factory=time.monotonic)

    def stop_clock(self) -> None:
        self.episode.seconds = time.monotonic() - self.started


class Turns:
    """How episodes go on under one prompt style, chat template and set of limits."""

    def __init__(self, style: PromptStyle, dialogue: Dialogue, limits: Limits) -> None:
        self._style, self._dialogue, self._limits = style, dialogue, limits

    def begin(self, index: int, job: Job, slot: int, result: PoolStep) -> Seat:
        """A new episode. Raises ConfigError where no answer fits behind its opening."""
        style, limit = self._style, self._limits.max_context
        episode = Episode(task=job.task, rollout_index=job.rollout_index)
        episode.goal, episode.scene, episode.system = result.goal, result.step.observation, style.system
        message = first_message(style, episode.scene, episode.goal, result.step.admissible)
        episode.token_ids += self._dialogue.open(style.system, message)
        if len(episode.token_ids) >= limit:
            raise ConfigError(opening_too_long(job.task, len(episode.token_ids), limit))
        return Seat(index, job, slot, episode, result, message)

    def answer(self, seat: Seat, reply: Reply) -> str | End | None:
        """Record an answer: the action to execute, None where it holds none, an end where it has no room."""
        episode = seat.episode
        if self._is_cut(episode, reply):
            if episode.all_turns:  # nor the question that it would have answered
                del episode.token_ids[episode.all_turns[-1].answer_end :]
            return Status.CONTEXT_FULL, ""
        seat.reply = reply
        start = len(episode.token_ids)
        episode.token_ids += reply.ids
        thought, action = parse_answer(self._style, self._dialogue.said(reply.text))
        turn = Turn(
            index=len(episode.all_turns),
            message=seat.message,
            observation=seat.reading.step.observation,
            answer=reply.text,
            answer_start=start,
            answer_end=len(episode.token_ids),
            thought=thought,
            action=action,
            admissible=seat.reading.step.admissible,
            truncated=reply.truncated,
            expert_distance_before=seat.reading.distance,
            expert_distance_after=seat.reading.distance,
            score=seat.reading.step.score,
        )
        episode.turns.append(turn)
        if action:
            return action
        turn.failure = Failure.UNPARSED if reply.text.strip() else Failure.EMPTY
        turn.feedback = self._style.unparsed
        return None

    def _is_cut(self, episode: Episode, reply: Reply) -> bool:
        """Whether the answer was cut off, or given too long, by the room that the episode has left."""
        room = self._limits.max_context - len(episode.token_ids)
        cut = reply.truncated and len(reply.ids) >= room and room < self._limits.max_new_tokens
        return cut or len(reply.ids) > room

    def after(self, seat: Seat, result: PoolStep | EnvFault | None) -> End | None:
        """What the environment said to the last answer (None: it was not asked); how the episode ends, if it
        does."""
        episode, reply = seat.episode, seat.reply
        assert reply is not None
        turn = episode.turns[-1]
        if isinstance(result, EnvFault):
            return Status.ENV_ERROR, result.reason
        if result is not None:
            seat.reading = result
            step = result.step
            turn.feedback, turn.failure = step.observation, step.failure
            turn.reward, turn.score = step.reward, step.score
            turn.expert_distance_after = result.distance
            episode.score = step.score
        turn.format_slip = format_slip(self._style, turn)
        if result is not None and result.step.done:
            return (Status.WON if result.step.won else Status.LOST), ""
        if len(episode.all_turns) >= self._limits.turn_budget:
            return Status.TURN_BUDGET, ""
        seat.message = turn_message(self._style, turn.feedback, seat.reading.step.admissible)
        follow = self._dialogue.after(reply.ids, seat.message)
        if len(episode.token_ids) + len(follow) >= self._limits.max_context:
            return Status.CONTEXT_FULL, ""
        episode.token_ids += follow
        return None


def opening_too_long(task: Task, tokens: int, limit: int) -> str:
    """The sentence that refuses an episode which could not hold a single answer."""
    return (
        f"The opening of {task.id} ({task.env}, {task.split}) takes {tokens:,} tokens, and "
        f"rollout.max_context (or the model's reach) is {limit:,}: no answer fits; raise "
        "rollout.max_context, or choose a shorter prompt.style."
    )

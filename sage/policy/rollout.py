"""Play episodes: many conversations side by side, each growing by exactly the ids that were sampled.

Invariant: `Episode.token_ids` is the sequence the model has seen, token for token; a turn's span in it is
what was sampled. Episodes that end leave at once and the next task takes their place. What an episode
samples depends only on (run seed, stream, task id, rollout index, turn), not on its neighbours.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sage.envs.pool import EnvFault, EnvPool, PoolStep
from sage.episode import Episode, Failure, Status, Task, Turn
from sage.policy.dialogue import Dialogue
from sage.policy.engine import EngineName
from sage.policy.generate import Decoder, Reply, Sampling, stream
from sage.policy.model import LanguageModel
from sage.policy.prompts import first_message, parse_answer, turn_message

if TYPE_CHECKING:
    from sage.config import PromptStyle


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play."""

    task: Task
    rollout_index: int = 0


@dataclass(frozen=True, slots=True)
class PlaySettings:
    """How episodes are played. `stream` names the random stream apart from other uses of the same seed;
    `turn_budget` counts answers; `max_context` counts an episode's tokens; `slots` play side by side.
    `engine` and `draft_tokens` (most tokens guessed ahead) change speed only."""

    sampling: Sampling
    style: PromptStyle
    seed: int
    stream: str
    turn_budget: int
    max_context: int
    slots: int
    engine: EngineName = "auto"
    draft_tokens: int = 0


@dataclass(slots=True)
class _Seat:
    """One episode being played. Its place in the list of seats is its row in the decoder."""

    index: int
    slot: int
    episode: Episode
    reading: PoolStep
    message: str
    pending: list[int] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


def play(
    lm: LanguageModel,
    pool: EnvPool,
    jobs: Sequence[Job],
    settings: PlaySettings,
    on_episode: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Play every job once; episodes come back in the order of `jobs`.

    A fault of an environment ends that episode as `env_error`. A failure of the model ends the episodes in
    play as `policy_error`, unless nothing has been played yet: then the error is the caller's (RuntimeError).
    """
    return _Table(lm, pool, jobs, settings, on_episode).play()


class _Table:
    def __init__(
        self,
        lm: LanguageModel,
        pool: EnvPool,
        jobs: Sequence[Job],
        settings: PlaySettings,
        on_episode: Callable[[Episode], None] | None,
    ) -> None:
        self.lm, self.pool, self.settings, self.on_episode = lm, pool, settings, on_episode
        self.dialogue = Dialogue(lm.tokenizer)
        self.queue = deque(enumerate(jobs))
        self.done: dict[int, Episode] = {}
        self.seats: list[_Seat] = []
        slots = max(1, min(settings.slots, len(jobs)))
        self.free = list(range(slots))
        self.decoder = self._decoder(slots)

    def _decoder(self, slots: int) -> Decoder:
        how = self.settings
        return Decoder(self.lm, slots, engine=how.engine, draft_tokens=how.draft_tokens)

    def play(self) -> list[Episode]:
        while self.queue or self.seats:
            self._seat_new()
            if not self.seats:
                continue
            try:
                replies = self._answers()
            except RuntimeError as error:
                if not self.done:
                    raise
                sentence = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                for row in reversed(range(len(self.seats))):
                    self._leave(row, Status.POLICY_ERROR, f"The model failed: {sentence}")
                self.decoder = self._decoder(len(self.free))
                continue
            self._act(replies)
        return [self.done[index] for index in sorted(self.done)]

    def _seat_new(self) -> None:
        wanted: list[tuple[int, Job, int]] = []
        while self.queue and self.free:
            index, job = self.queue.popleft()
            wanted.append((index, job, self.free.pop()))
        if not wanted:
            return
        results = self.pool.reset_many([(slot, job.task) for _, job, slot in wanted])
        for index, job, slot in wanted:
            result = results[slot]
            episode = Episode(task=job.task, rollout_index=job.rollout_index)
            if isinstance(result, EnvFault):
                self.free.append(slot)
                self._finish(index, episode, Status.ENV_ERROR, result.reason)
                continue
            style = self.settings.style
            episode.goal, episode.scene, episode.system = result.goal, result.step.observation, style.system
            message = first_message(style, episode.scene, episode.goal, result.step.admissible)
            seat = _Seat(index, slot, episode, result, message)
            seat.pending = self.dialogue.open(style.system, message)
            episode.token_ids += seat.pending
            self.seats.append(seat)

    def _answers(self) -> list[Reply]:
        """Decode one answer per seat."""
        settings = self.settings
        sampling = settings.sampling
        uniforms = None
        if sampling.temperature > 0:
            uniforms = np.stack([self._uniforms(seat, sampling.max_new_tokens) for seat in self.seats])
        room = [settings.max_context - self.decoder.lengths[row] for row in range(len(self.seats))]
        prompts = [seat.pending for seat in self.seats]
        return self.decoder.answer(slice(0, len(self.seats)), prompts, sampling, uniforms, room)

    def _uniforms(self, seat: _Seat, count: int) -> np.ndarray:
        episode, settings = seat.episode, self.settings
        key = (settings.seed, settings.stream, episode.task.id, episode.rollout_index, len(episode.turns))
        return stream(*key).random(count)

    def _act(self, replies: list[Reply]) -> None:
        """Record the answers, execute their actions, and end or continue each episode."""
        style = self.settings.style
        actions: list[tuple[int, str]] = []
        for seat, reply in zip(self.seats, replies, strict=True):
            episode = seat.episode
            start = len(episode.token_ids)
            episode.token_ids += reply.ids
            thought, action = parse_answer(style, reply.text)
            turn = Turn(
                index=len(episode.turns),
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
                actions.append((seat.slot, action))
            else:
                turn.failure = Failure.UNPARSED if reply.text.strip() else Failure.EMPTY
                turn.feedback = style.unparsed
        results = self.pool.step_many(actions) if actions else {}
        # From the last row to the first: a leaving row is filled from the end, which was handled already.
        for row in reversed(range(len(self.seats))):
            seat = self.seats[row]
            self._after_step(row, results.get(seat.slot), replies[row])

    def _after_step(self, row: int, result: PoolStep | EnvFault | None, reply: Reply) -> None:
        seat = self.seats[row]
        episode = seat.episode
        turn = episode.turns[-1]
        if isinstance(result, EnvFault):
            self._leave(row, Status.ENV_ERROR, result.reason)
            return
        if result is not None:
            seat.reading = result
            step = result.step
            turn.feedback, turn.failure = step.observation, step.failure
            turn.reward, turn.score = step.reward, step.score
            turn.expert_distance_after = result.distance
            episode.score = step.score
            if step.done:
                self._leave(row, Status.WON if step.won else Status.LOST)
                return
        if len(episode.turns) >= self.settings.turn_budget:
            self._leave(row, Status.TURN_BUDGET)
            return
        seat.message = turn_message(self.settings.style, turn.feedback, seat.reading.step.admissible)
        follow = self.dialogue.follow(seat.message, self.dialogue.ended(reply.ids))
        # The answer's last id has not been through the model yet: it heads the next prompt.
        last = reply.ids[-1:]
        if len(episode.token_ids) + len(follow) >= self.settings.max_context:
            self._leave(row, Status.TURN_BUDGET)
            return
        seat.pending = last + follow
        episode.token_ids += follow

    def _leave(self, row: int, status: Status, error: str = "") -> None:
        """End the episode of `row`; the last row takes its place."""
        seat = self.seats[row]
        last = len(self.seats) - 1
        self.decoder.release(row, last)
        self.seats[row] = self.seats[last]
        self.seats.pop()
        self.free.append(seat.slot)
        seat.episode.seconds = time.monotonic() - seat.started
        self._finish(seat.index, seat.episode, status, error)

    def _finish(self, index: int, episode: Episode, status: Status, error: str = "") -> None:
        episode.status, episode.error = status, error
        self.done[index] = episode
        if self.on_episode is not None:
            self.on_episode(episode)

"""Play episodes: many conversations side by side, each growing by exactly the ids that were sampled.

Invariant: `Episode.token_ids` is the sequence the model has seen, token for token; a turn's span in it is
what was sampled. Episodes that end leave at once and the next task takes their place. What an episode
samples depends only on (run seed, stream, task id, rollout index, turn), not on its neighbours.

An episode whose next turn has no room in `max_context` ends `context_full`. An answer that the limit would
cut off is no answer: nothing of that turn is kept, so that no half sentence is executed, judged or trained
on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sage.envs.pool import EnvFault, EnvPool, PoolStep
from sage.episode import Episode, Failure, Status, Task, Turn
from sage.errors import ConfigError
from sage.policy.decoding.engine import EngineName, Who
from sage.policy.decoding.generate import Decoder, Decodes, Reply, Sampling, stream
from sage.policy.dialogue import Dialogue
from sage.policy.models.failures import OURS, Patience, failure_of, free_memory, without_frames
from sage.policy.models.load import LanguageModel
from sage.policy.prompts import first_message, parse_answer, turn_message
from sage.policy.slips import format_slip

if TYPE_CHECKING:
    from sage.config.schema import PromptStyle


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play. `last_turns`: a curriculum leaves the student only so many at the end of what the
    teacher would play; None leaves it the whole episode."""

    task: Task
    rollout_index: int = 0
    last_turns: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An episode whose next answer may be given instead of sampled; `turns` of it have been played."""

    job: Job
    slot: int
    turns: int


End = tuple[Status, str]
"""How an episode ended, and the sentence that says why where it is not ok."""

Given = Reply | EnvFault | Status | End | None
"""What an opening has for an episode."""


class Opening(Protocol):
    """Gives the first answers of episodes in the model's place (`sage.policy.openings`)."""

    counts: bool
    """The given turns are the episode's own (`Episode.turns`); else they are only its history (`given`)."""

    def __call__(self, waiting: Sequence[Waiting]) -> Sequence[Given]:
        """The next answer of each; None where the model goes on from here, a status (with the reason where
        it is not ok, or a fault) where the episode ends."""
        ...


@dataclass(frozen=True, slots=True)
class PlaySettings:
    """How episodes are played. `stream` names the random stream apart from other uses of the same seed;
    `turn_budget` counts answers; `max_context` counts an episode's tokens; `slots` play side by side.
    `engine` and `draft_tokens` (most tokens guessed ahead) change speed only; the decoder `vllm` draws its
    own samples, and `vllm` holds its arguments."""

    sampling: Sampling
    style: PromptStyle
    seed: int
    stream: str
    turn_budget: int
    max_context: int
    slots: int
    engine: EngineName = "auto"
    decoder: Who = "local"
    draft_tokens: int = 0
    vllm: Mapping[str, Any] = field(default_factory=dict)


OnTurns = Callable[[Sequence[tuple[Episode, Turn]]], None]
"""Is told of the turns that were just played side by side, each with its episode."""


@dataclass(slots=True)
class _Seat:
    """One episode being played. Its place in the list of seats is its row in the decoder."""

    index: int
    job: Job
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
    opening: Opening | None = None,
    on_turns: OnTurns | None = None,
) -> list[Episode]:
    """Play every job once; episodes come back in the order of `jobs`. `opening` may give their first answers,
    of which `on_turns` is not told. Raises ConfigError where an opening alone fills `max_context`.

    A fault of an environment ends that episode as `env_error`. Where the model fails, the same answers are
    tried again with half as many rows, whose histories are encoded anew, and the others wait; the tokens are
    the same. An episode whose answer fails alone ends `policy_error`. A model that answers nothing at all is
    the caller's error: what it raised.
    """
    return _Table(lm, pool, jobs, settings, on_episode, opening, on_turns).play()


def opening_too_long(task: Task, tokens: int, limit: int) -> str:
    """The sentence that refuses an episode which could not hold a single answer."""
    return (
        f"The opening of {task.id} ({task.env}, {task.split}) takes {tokens:,} tokens, and "
        f"rollout.max_context (or the model's reach) is {limit:,}: no answer fits; raise "
        "rollout.max_context, or choose a shorter prompt.style."
    )


class _Table:
    def __init__(
        self,
        lm: LanguageModel,
        pool: EnvPool,
        jobs: Sequence[Job],
        settings: PlaySettings,
        on_episode: Callable[[Episode], None] | None,
        opening: Opening | None,
        on_turns: OnTurns | None,
    ) -> None:
        self.lm, self.pool, self.settings, self.on_episode = lm, pool, settings, on_episode
        self.opening, self.on_turns = opening, on_turns
        self.dialogue = Dialogue(lm.tokenizer, lm.thinking)
        self.sampling = replace(settings.sampling, stop=self.dialogue.stop(settings.sampling.stop))
        self.queue = deque(enumerate(jobs))
        self.done: dict[int, Episode] = {}
        self.seats: list[_Seat] = []
        self.slots = max(1, min(settings.slots, len(jobs)))
        self.free = list(range(self.slots))
        self.decoder = self._decoder(self.slots)
        self.rows = self.slots
        """Most seats at a time; fewer than slots after the model failed on more."""
        self.parked: deque[_Seat] = deque()
        """Seats that wait for a row."""
        self.rows_before = 0
        """`rows` before the failures that are being narrowed down; 0 where there are none."""
        self.fresh = True
        """Nothing is cached that an answer could do without."""
        self.patience = Patience()

    def _decoder(self, slots: int) -> Decodes:
        how = self.settings
        if how.decoder == "vllm":
            from sage.policy.decoding.vllm_decoder import VllmDecoder

            return VllmDecoder(self.lm, slots, how.vllm)
        return Decoder(self.lm, slots, engine=how.engine, draft_tokens=how.draft_tokens)

    def play(self) -> list[Episode]:
        while self.queue or self.seats or self.parked:
            self._seat_new()
            if not self.seats:
                continue
            failed: Exception | None = None
            try:
                replies = self._answers()
            except OURS:
                raise
            except Exception as error:  # whatever a model raises, it says nothing about the agent
                failed = without_frames(error)
            if failed is not None:
                self._narrow_down(failed)
                continue
            self.patience.answered()
            self.fresh, self.rows_before = False, 0
            before = [len(seat.episode.turns) for seat in self.seats]
            ends = self._act(self.seats, replies)
            if self.on_turns is not None:
                self.on_turns(
                    [
                        (seat.episode, seat.episode.turns[-1])
                        for seat, end, count in zip(self.seats, ends, before, strict=True)
                        if (end is None or end[0].is_ok) and len(seat.episode.turns) > count
                    ]
                )
            # From the last row to the first: a leaving row is filled from the end, which was handled already.
            for row in reversed(range(len(ends))):
                end = ends[row]
                if end is not None:
                    self._leave(row, *end)
        return [self.done[index] for index in sorted(self.done)]

    def _narrow_down(self, error: Exception) -> None:
        """After a failure: half as many rows, or one with nothing cached; then the episode is given up."""
        for seat in self.seats:
            seat.episode.retries += 1
        rows = len(self.seats)
        self.rows_before = self.rows_before or self.rows
        if rows > 1 or not self.fresh:
            self._restart(max(1, rows // 2))
            return
        self._leave(0, Status.POLICY_ERROR, failure_of(error))
        self.patience.failed_alone(error, last=not (self.queue or self.parked))
        self._restart(self.rows_before)
        self.rows_before = 0

    def _restart(self, rows: int) -> None:
        """Play on with at most so many rows, and none of them encoded yet."""
        waiting = [*self.seats, *self.parked]
        for seat in waiting:
            seat.pending = list(seat.episode.token_ids)
        self.seats, self.parked = waiting[:rows], deque(waiting[rows:])
        self.rows, self.fresh = rows, True
        del self.decoder
        free_memory()
        self.decoder = self._decoder(rows)

    def _seat_new(self) -> None:
        while self.parked and len(self.seats) < self.rows:
            self.seats.append(self.parked.popleft())
        wanted: list[tuple[int, Job, int]] = []
        while self.queue and self.free and len(self.seats) + len(wanted) < self.rows:
            index, job = self.queue.popleft()
            wanted.append((index, job, self.free.pop()))
        if not wanted:
            return
        results = self.pool.reset_many([(slot, job.task) for _, job, slot in wanted])
        new: list[_Seat] = []
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
            seat = _Seat(index, job, slot, episode, result, message)
            seat.pending = self.dialogue.open(style.system, message)
            if len(seat.pending) >= self.settings.max_context:
                raise ConfigError(opening_too_long(job.task, len(seat.pending), self.settings.max_context))
            episode.token_ids += seat.pending
            new.append(seat)
        self.seats += new if self.opening is None else self._opened(new, self.opening)

    def _opened(self, seats: list[_Seat], opening: Opening) -> list[_Seat]:
        """Play the answers that are given; the seats whose next answer is the model's."""
        ready: list[_Seat] = []
        while seats:
            answers = opening([Waiting(seat.job, seat.slot, len(seat.episode.played)) for seat in seats])
            going: list[_Seat] = []
            replies: list[Reply] = []
            for seat, answer in zip(seats, answers, strict=True):
                if isinstance(answer, Reply):
                    going.append(seat)
                    replies.append(answer)
                    continue
                if not opening.counts:
                    seat.episode.given, seat.episode.turns = seat.episode.turns, []
                if isinstance(answer, EnvFault):
                    self._dismiss(seat, Status.ENV_ERROR, answer.reason)
                elif isinstance(answer, Status):
                    self._dismiss(seat, answer)
                elif isinstance(answer, tuple):
                    self._dismiss(seat, *answer)
                else:
                    # Nothing of the conversation has been through the model yet.
                    seat.pending = list(seat.episode.token_ids)
                    ready.append(seat)
            seats = []
            for seat, end in zip(going, self._act(going, replies), strict=True):
                if end is None:
                    seats.append(seat)
                    continue
                if not opening.counts:
                    seat.episode.given, seat.episode.turns = seat.episode.turns, []
                self._dismiss(seat, *end)
        return ready

    def _answers(self) -> list[Reply]:
        """Decode one answer per seat."""
        settings = self.settings
        sampling = self.sampling
        uniforms = None
        if sampling.temperature > 0:
            uniforms = np.stack([self._uniforms(seat, sampling.max_new_tokens) for seat in self.seats])
        room = [settings.max_context - self.decoder.lengths[row] for row in range(len(self.seats))]
        prompts = [seat.pending for seat in self.seats]
        return self.decoder.answer(slice(0, len(self.seats)), prompts, sampling, uniforms, room)

    def _uniforms(self, seat: _Seat, count: int) -> np.ndarray:
        episode, settings = seat.episode, self.settings
        key = (settings.seed, settings.stream, episode.task.id, episode.rollout_index, len(episode.played))
        return stream(*key).random(count)

    def _act(self, seats: Sequence[_Seat], replies: Sequence[Reply]) -> list[End | None]:
        """Record the answers and execute their actions; how each episode has ended, None where it goes on."""
        style = self.settings.style
        actions: list[tuple[int, str]] = []
        cut: set[int] = set()
        for seat, reply in zip(seats, replies, strict=True):
            episode = seat.episode
            if self._is_cut(episode, reply):
                cut.add(seat.slot)
                if episode.played:  # nor the question that it would have answered
                    del episode.token_ids[episode.played[-1].answer_end :]
                continue
            start = len(episode.token_ids)
            episode.token_ids += reply.ids
            thought, action = parse_answer(style, self.dialogue.said(reply.text))
            turn = Turn(
                index=len(episode.played),
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
        return [
            (Status.CONTEXT_FULL, "")
            if seat.slot in cut
            else self._after_step(seat, results.get(seat.slot), reply)
            for seat, reply in zip(seats, replies, strict=True)
        ]

    def _is_cut(self, episode: Episode, reply: Reply) -> bool:
        """Whether the answer was cut off, or given too long, by the room that the episode has left."""
        room = self.settings.max_context - len(episode.token_ids)
        cut = reply.truncated and len(reply.ids) >= room and room < self.settings.sampling.max_new_tokens
        return cut or len(reply.ids) > room

    def _after_step(self, seat: _Seat, result: PoolStep | EnvFault | None, reply: Reply) -> End | None:
        episode = seat.episode
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
        turn.format_slip = format_slip(self.settings.style, turn)
        if result is not None and result.step.done:
            return (Status.WON if result.step.won else Status.LOST), ""
        if len(episode.played) >= self.settings.turn_budget:
            return Status.TURN_BUDGET, ""
        seat.message = turn_message(self.settings.style, turn.feedback, seat.reading.step.admissible)
        follow = self.dialogue.after(reply.ids, seat.message)
        # The answer's last id has not been through the model yet: it heads the next prompt.
        last = reply.ids[-1:]
        if len(episode.token_ids) + len(follow) >= self.settings.max_context:
            return Status.CONTEXT_FULL, ""
        seat.pending = last + follow
        episode.token_ids += follow
        return None

    def _leave(self, row: int, status: Status, error: str = "") -> None:
        """End the episode of `row`; the last row takes its place."""
        seat = self.seats[row]
        last = len(self.seats) - 1
        self.decoder.release(row, last)
        self.seats[row] = self.seats[last]
        self.seats.pop()
        self._dismiss(seat, status, error)

    def _dismiss(self, seat: _Seat, status: Status, error: str = "") -> None:
        """End the episode of a seat that has no row (any more)."""
        self.free.append(seat.slot)
        seat.episode.seconds = time.monotonic() - seat.started
        self._finish(seat.index, seat.episode, status, error)

    def _finish(self, index: int, episode: Episode, status: Status, error: str = "") -> None:
        episode.status, episode.error = status, error
        self.done[index] = episode
        if self.on_episode is not None:
            self.on_episode(episode)

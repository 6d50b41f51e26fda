"""Play episodes: many conversations side by side, each growing by exactly the ids that were sampled.

Invariant: `Episode.token_ids` is the sequence the model has seen, token for token; a turn's span in it is
what was sampled. What an episode samples depends only on (run seed, stream, task id, rollout index, turn),
not on its neighbours, nor on who was faster: nobody waits for another one's turn to end. An episode whose
environment has answered is decoded on, one that ends leaves at once, and the next task takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sage.envs.pool import EnvFault, EnvPool, PoolStep
from sage.episode import Episode, Status, Turn
from sage.errors import is_out_of_memory
from sage.policy.decoding.answer import Reply, Sampling
from sage.policy.decoding.engine import EngineName, Who
from sage.policy.decoding.generate import Decoder, Decodes, stream
from sage.policy.dialogue import Dialogue
from sage.policy.models.failures import OURS, Patience, failure_of, free_memory, without_frames
from sage.policy.models.load import LanguageModel
from sage.policy.seat import End, Job, Limits, Seat, Turns
from sage.records.activity import did, doing, expect

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle


@dataclass(frozen=True, slots=True)
class Waiting:
    """An episode whose next answer may be given instead of sampled; `turns` of it have been played, and these
    commands are `admissible` now (none where the environment does not list them)."""

    job: Job
    slot: int
    turns: int
    admissible: tuple[str, ...] = ()


def _waiting(seat: Seat) -> Waiting:
    return Waiting(seat.job, seat.slot, len(seat.episode.all_turns), seat.reading.step.admissible)


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


def _unheard(_line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class PlaySettings:
    """How episodes are played. `stream` names the random stream apart from other uses of the same seed;
    `turn_budget` counts answers; `max_context` counts an episode's tokens; `slots` play side by side, with
    memory for about `room` tokens each where that is known. `engine`, `draft_tokens` (most tokens guessed
    ahead) and `room` change speed only; the decoder `vllm` draws its own samples, and `vllm` holds its
    arguments."""

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
    room: int | None = None
    vllm: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = _unheard
    """Is told of what is played otherwise than planned."""


OnTurns = Callable[[Sequence[tuple[Episode, Turn]]], None]
"""Is told of the turns that were just played side by side, each with its episode."""


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
    the same. Where it was the memory, later calls begin with half as many, and `PlaySettings.say` is told. An
    episode whose answer fails alone ends `policy_error`. A model that answers nothing at all is the caller's
    error: what it raised.
    """
    batch = _Batch(lm, pool, jobs, settings, on_episode, opening, on_turns)
    try:
        return batch.play()
    finally:
        del batch
        if settings.decoder == "vllm":
            from sage.policy.decoding.vllm_decoder import rest

            rest(lm)
        if lm.device.type == "cuda":
            free_memory()  # the training pass wants what the keys and values held


class _Batch:
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
        dialogue = Dialogue(lm.tokenizer, lm.thinking)
        self.sampling = replace(settings.sampling, stop=dialogue.stop(settings.sampling.stop))
        limits = Limits(settings.turn_budget, settings.max_context, settings.sampling.max_new_tokens)
        self.turns = Turns(settings.style, dialogue, limits)
        self.queue = deque(enumerate(jobs))
        self.done: dict[int, Episode] = {}
        self.most = min(settings.slots, lm.most_rows or settings.slots)
        self.slots = max(1, min(self.most, len(jobs)))
        self.free = list(range(self.slots))
        """Places in the pool."""
        self.starting: dict[int, tuple[int, Job]] = {}
        """By slot: the environment has been asked to begin."""
        self.seats: list[Seat] = []
        """Those that have a row of the decoder, which is their place in this list."""
        self.parked: deque[Seat] = deque()
        """Those that wait for a row."""
        self.rows = self.slots
        """Most seats at a time; fewer than slots after the model failed on more."""
        self.decoder = self._decoder(self.rows)
        self.rows_before = 0
        """`rows` before the failures that are being narrowed down; 0 where there are none."""
        self.suspects: list[Seat] = []
        """Those that were in the forward which failed, and have not answered since."""
        self.fresh = True
        """Nothing is cached that an answer could do without."""
        self.patience = Patience()
        self.told: list[tuple[Episode, Turn]] = []
        """Turns that are complete, which `on_turns` has not been told of."""

    def _decoder(self, rows: int) -> Decodes:
        how = self.settings
        if how.decoder == "vllm":
            from sage.policy.decoding.vllm_decoder import VllmDecoder

            return VllmDecoder(self.lm, rows, how.vllm)
        return Decoder(
            self.lm,
            self.most if rows == self.slots else rows,
            engine=how.engine,
            draft_tokens=how.draft_tokens,
            rows=rows,
            room=how.room,
        )

    def play(self) -> list[Episode]:
        expect(len(self.queue), "episodes", self.settings.turn_budget)
        try:
            while self.queue or self.starting or self.seats or self.parked:
                self._fill()
                self._hear(wait=not any(seat.answering for seat in self.seats))
                if any(seat.answering for seat in self.seats):
                    self._decode()
        except BaseException:
            self.pool.forget()
            raise
        self._tell()
        return [self.done[index] for index in sorted(self.done)]

    def _fill(self) -> None:
        """Give rows to those who wait for one, and begin new episodes where some are left."""
        while self.parked and len(self.seats) < self.rows:
            self._sit(self.parked.popleft())
        wanted: list[tuple[int, Job, int]] = []
        while self.queue and self.free and len(self.seats) + len(self.starting) + len(wanted) < self.rows:
            wanted.append((*self.queue.popleft(), self.free.pop()))
        if not wanted:
            return
        self.starting |= {slot: (index, job) for index, job, slot in wanted}
        requests = [(slot, job.task) for _, job, slot in wanted]
        if self.opening is None:
            with self._starting():
                self.pool.ask_resets(requests)
            return
        results = self.pool.reset_many(requests)
        new = [seat for slot, result in results.items() if (seat := self._started(slot, result))]
        for seat in self._opened(new, self.opening):
            self._sit(seat)

    def _sit(self, seat: Seat) -> None:
        """Give the seat a row, or let it wait for one; its answer begins unless its environment is asked."""
        if len(self.seats) >= self.rows:
            self.parked.append(seat)
            return
        seat.row = len(self.seats)
        self.seats.append(seat)
        if not seat.asked:
            self._begin(seat)

    def _begin(self, seat: Seat) -> None:
        """What the row has not seen is fed, and an answer to it decoded."""
        assert seat.row is not None
        seen, sampling = self.decoder.lengths[seat.row], self.sampling
        uniforms_T = self._uniforms(seat, sampling.max_new_tokens) if sampling.temperature > 0 else None
        room = self.settings.max_context - seen
        self.decoder.begin(seat.row, seat.episode.token_ids[seen:], sampling, uniforms_T, room)
        seat.answering = True

    def _uniforms(self, seat: Seat, count: int) -> np.ndarray:
        episode, settings = seat.episode, self.settings
        key = (settings.seed, settings.stream, episode.task.id, episode.rollout_index, len(episode.all_turns))
        return stream(*key).random(count)

    def _hear(self, wait: bool) -> None:
        """Take what environments have said."""
        with self._starting():
            heard = self.pool.answers(wait)
        for slot, result in heard.items():
            if slot in self.starting:
                seat = self._started(slot, result)
                if seat is not None:
                    self._sit(seat)
                continue
            seat = next(seat for seat in (*self.seats, *self.parked) if seat.slot == slot)
            self._complete(seat, result)
        self._tell()

    def _starting(self) -> AbstractContextManager[None]:
        """As long as nobody plays, environments are waited for."""
        nobody = not (self.seats or self.parked or self.done)
        return doing("starting the environments") if nobody else nullcontext()

    def _tell(self) -> None:
        if self.told and self.on_turns is not None:
            self.on_turns(self.told)
        self.told = []

    def _started(self, slot: int, result: PoolStep | EnvFault) -> Seat | None:
        """A new episode; None where its environment did not begin."""
        index, job = self.starting.pop(slot)
        if isinstance(result, EnvFault):
            self.free.append(slot)
            episode = Episode(task=job.task, rollout_index=job.rollout_index)
            self._finish(index, episode, Status.ENV_ERROR, result.reason)
            return None
        return self.turns.begin(index, job, slot, result)

    def _opened(self, seats: list[Seat], opening: Opening) -> list[Seat]:
        """Play the answers that are given; the seats whose next answer is the model's."""
        ready: list[Seat] = []
        while seats:
            given = opening([_waiting(seat) for seat in seats])
            going: list[Seat] = []
            replies: list[Reply] = []
            for seat, answer in zip(seats, given, strict=True):
                if isinstance(answer, Reply):
                    going.append(seat)
                    replies.append(answer)
                    continue
                self._begins_here(seat, opening)
                if answer is None:
                    ready.append(seat)
                elif isinstance(answer, EnvFault):
                    self._leave(seat, Status.ENV_ERROR, answer.reason)
                else:
                    self._leave(seat, *(answer if isinstance(answer, tuple) else (answer,)))
            seats = []
            for seat, end in zip(going, self._act(going, replies), strict=True):
                if end is None:
                    seats.append(seat)
                    continue
                self._begins_here(seat, opening)
                self._leave(seat, *end)
        return ready

    def _begins_here(self, seat: Seat, opening: Opening) -> None:
        """Turns that only lead up to the episode are no part of it."""
        if not opening.counts:
            seat.episode.given, seat.episode.turns = seat.episode.turns, []

    def _act(self, seats: Sequence[Seat], replies: Sequence[Reply]) -> list[End | None]:
        """Execute given answers, all at once; how each episode has ended, None where it goes on."""
        said = [self.turns.answer(seat, reply) for seat, reply in zip(seats, replies, strict=True)]
        actions = [(seat.slot, what) for seat, what in zip(seats, said, strict=True) if isinstance(what, str)]
        results = self.pool.step_many(actions) if actions else {}
        did(turns=len(seats))
        return [
            what if isinstance(what, tuple) else self.turns.after(seat, results.get(seat.slot))
            for seat, what in zip(seats, said, strict=True)
        ]

    def _decode(self) -> None:
        """One step of the decoder; the actions that come out of it are under way when this returns."""
        failed: Exception | None = None
        try:
            done = self._answers()
        except OURS:
            raise
        except Exception as error:  # whatever a model raises, it says nothing about the agent
            failed = without_frames(error)
        if failed is not None:
            self._narrow_down(failed)
            return
        actions: list[tuple[int, str]] = []
        for seat, reply in done:
            seat.answering = False
            said = self.turns.answer(seat, reply)
            if isinstance(said, tuple):
                self._leave(seat, *said)
            elif said is None:
                self._complete(seat, None)
            else:
                seat.asked = True
                actions.append((seat.slot, said))
        if actions:
            self.pool.ask_steps(actions)

    def _answers(self) -> list[tuple[Seat, Reply]]:
        done = [(self.seats[row], reply) for row, reply in self.decoder.step()]
        if done:
            self.patience.answered()
            self.fresh = False
            answered = [seat for seat, _ in done]
            self.suspects = [seat for seat in self.suspects if seat not in answered]
            self.rows_before = self.rows_before if self.suspects else 0
        return done

    def _complete(self, seat: Seat, result: PoolStep | EnvFault | None) -> None:
        """The seat's turn is over: the next one begins, or the episode ends."""
        seat.asked = False
        end = self.turns.after(seat, result)
        did(turns=1)
        if end is None or end[0].is_ok:
            self.told.append((seat.episode, seat.episode.turns[-1]))
        if end is not None:
            self._leave(seat, *end)
        elif seat.row is not None:
            self._begin(seat)

    def _narrow_down(self, error: Exception) -> None:
        """After a failure: half as many rows, or one with nothing cached; then the episode is given up."""
        failing = [seat for seat in self.seats if seat.answering]
        for seat in failing:
            seat.episode.retries += 1
        self.suspects = [seat for seat in failing if seat in self.suspects] or failing
        rows = len(self.seats)
        if rows > 1 and not self.rows_before and is_out_of_memory(error):
            self._remember(rows)
        self.rows_before = self.rows_before or self.rows
        if rows > 1 or not self.fresh:
            self._restart(max(1, rows // 2))
            return
        self._leave(failing[0], Status.POLICY_ERROR, failure_of(error))
        self.patience.failed_alone(error, last=not (self.queue or self.parked or self.starting))
        self._restart(self.rows_before)
        self.rows_before, self.suspects = 0, []

    def _remember(self, rows: int) -> None:
        """So many have run out of memory: from the next batch on only half as many are played side by
        side. What is narrowed down below that says something about single episodes."""
        fewer = max(1, rows // 2)
        if fewer < (self.lm.most_rows or self.settings.slots):
            self.lm.most_rows = fewer
            self.settings.say(
                f"{rows} episodes side by side have run out of memory: {fewer} are played from here on, which"
                f" changes no answer; speed.slots={fewer} does so from the start"
            )

    def _restart(self, rows: int) -> None:
        """Play on with at most so many rows, and none of them encoded yet; suspects first."""
        waiting = [*self.suspects, *(s for s in (*self.seats, *self.parked) if s not in self.suspects)]
        for seat in waiting:
            seat.row, seat.answering = None, False
        self.seats, self.parked = [], deque(waiting)
        self.rows, self.fresh = rows, True
        del self.decoder
        free_memory()
        self.decoder = self._decoder(rows)

    def _leave(self, seat: Seat, status: Status, error: str = "") -> None:
        """End the episode of a seat; the last row takes the place of its own, if it has one."""
        if seat.row is not None:
            last = self.seats.pop()
            self.decoder.release(seat.row, len(self.seats))
            if last is not seat:
                self.seats[seat.row], last.row = last, seat.row
        elif seat in self.parked:
            self.parked.remove(seat)
        self.suspects = [other for other in self.suspects if other is not seat]
        self.free.append(seat.slot)
        seat.stop_clock()
        self._finish(seat.index, seat.episode, status, error)

    def _finish(self, index: int, episode: Episode, status: Status, error: str = "") -> None:
        episode.status, episode.error = status, error
        self.done[index] = episode
        did(1)
        if self.on_episode is not None:
            self.on_episode(episode)

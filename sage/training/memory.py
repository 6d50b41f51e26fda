"""The memory of a run on one device, planned from shapes before the first token.

Pure arithmetic. A step goes through phases, each of which holds some things beside what is always there; the
plan is the largest of them. `slots` and `micro_batch` are what fits: whole episodes that are decoded side by
side, and episodes of one training pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sage.policy.models.shape import Shape

if TYPE_CHECKING:
    from sage.config.schema import RunConfig
    from sage.policy.context import SplitContext

CONTEXT = 3 << 28
"""Bytes that a CUDA context and its libraries take."""
SPARE = 0.05
"""Share of the memory that is left alone: an allocator cannot use all of it."""
LOSS_BYTES = {False: 28, True: 10}
"""Bytes of the loss for each element of a chunk's logits, uncompiled and compiled: the peaks of an H100
(0.78 GiB at 2^23 elements; 3.5 GiB at 2,048 tokens) less the gradient of the head."""
CHUNKS = (512, 2_048)
"""Tokens of a chunk of the loss on a GPU: with fewer it is the heads that are read, with more nothing is
gained."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a run asks for.

    episode: tokens of the longest episode that is planned for. opening: those before its first answer.
    answers: most tokens of answers in one episode. episodes: of a step. query: tokens of a judge's prompt and
    reply, 0 where none is asked. chunk: tokens of a chunk of the loss, 0 for `loss_chunk`'s; `compiled`:
    whether the loss is. checkpointed: whether layers are computed again for the gradient; `auto` is for
    `fitted` to say. packed: whether a pass is one sequence of as many tokens as `micro_batch` episodes have.
    shards: processes over which the optimizer's state and the float32 gradient are cut.
    """

    episode: int
    opening: int
    answers: int
    episodes: int
    slots: int
    micro_batch: int
    query: int = 0
    judge_batch: int = 0
    chunk: int = 0
    compiled: bool = True
    checkpointed: Literal["auto"] | bool = False
    packed: bool = False
    shards: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """`always` and `phases`: bytes by what takes them. `capacity`: bytes of the device that may be used."""

    need: Need
    always: Mapping[str, int]
    phases: Mapping[str, Mapping[str, int]]
    capacity: int

    @property
    def slots(self) -> int:
        return self.need.slots

    @property
    def micro_batch(self) -> int:
        return self.need.micro_batch

    @property
    def peak(self) -> int:
        """Bytes of the largest phase."""
        return sum(self.always.values()) + max(sum(phase.values()) for phase in self.phases.values())

    @property
    def fits(self) -> bool:
        return self.peak <= self.capacity

    def holds(self, phase: str) -> bool:
        """Whether one phase fits, whatever the others take."""
        return sum(self.always.values()) + sum(self.phases.get(phase, {}).values()) <= self.capacity

    def lines(self) -> list[str]:
        """For a page or a log: what is always there, then every phase with its sum."""
        always = sum(self.always.values())
        lines = [f"always {_gib(always)}: {_listed(self.always)}"]
        for name, phase in self.phases.items():
            lines.append(f"{name} {_gib(always + sum(phase.values()))}: {_listed(phase)}")
        return lines

    def summary(self) -> str:
        """One sentence: what was chosen, and what it takes."""
        verdict = "fits" if self.fits else "DOES NOT FIT"
        again = ", layers computed again" if self.need.checkpointed is True else ""
        return (
            f"{self.slots} episodes of {self.need.episode:,} tokens side by side, {self.micro_batch} in a "
            f"training pass{again}: {_gib(self.peak)} of {_gib(self.capacity)}, {verdict}"
        )


def loss_chunk(vocabulary: int, memory: int, *, compiled: bool) -> int:
    """Tokens of a chunk of the loss on a device with `memory` bytes for a run: so many that it takes a
    fiftieth of them, within `CHUNKS`, and in no case more than a tenth."""
    of_a_token = LOSS_BYTES[compiled] * vocabulary
    fewest, most = CHUNKS
    return max(1, min(most, max(fewest, memory // (50 * of_a_token)), memory // (10 * of_a_token)))


def plan(student: Shape, teacher: Shape | None, need: Need, memory: int) -> Plan:
    """The plan of `need` as it is, on a device that has `memory` bytes for this run (models included).

    `teacher` None: the student is only played with.
    """
    usable = int(memory * (1 - SPARE)) - CONTEXT
    cached = need.slots * need.episode * student.cached
    always = {"student": student.weights}
    phases: dict[str, dict[str, int]] = {"rollout": {f"keys and values of {need.slots} episodes": cached}}
    if teacher is None:
        return Plan(need, always, phases, usable)
    always |= {"teacher": teacher.weights}
    if student.size < 4 or need.shards > 1:
        always |= {"float32 masters": 4 * student.learning // need.shards}
    always |= {"moments": 8 * student.learning // need.shards}
    hidden = need.episodes * need.answers * teacher.width * teacher.size
    tokens = need.micro_batch * need.episode
    chunk = need.chunk or loss_chunk(student.vocabulary, memory, compiled=need.compiled)
    need = replace(need, chunk=chunk)
    loss = LOSS_BYTES[need.compiled] * chunk * student.vocabulary
    if need.query:
        phases["judge"] = {
            f"keys and values of {need.judge_batch} queries": need.judge_batch * need.query * teacher.cached
        }
    kept = {"teacher's hidden states": hidden}
    phases["teacher"] = kept | {
        "one layer's work": tokens * teacher.working,
        "confidence": LOSS_BYTES[False] * chunk * teacher.vocabulary,
    }
    phases["student"] = kept | {
        "gradient": student.learning * student.size,
        _activations(need, tokens): student.activations(tokens, checkpointed=need.checkpointed is True),
        "loss": loss,
    }
    phases["step"] = {
        "gradient": student.learning * student.size,
        "float32 gradient": 4 * student.learning // need.shards,
    }
    if student.size == 4 and need.shards == 1:
        del phases["step"]["float32 gradient"]
    return Plan(need, always, phases, usable)


def fitted(student: Shape, teacher: Shape | None, need: Need, memory: int) -> Plan:
    """The plan with the most slots, judge's queries and episodes of a pass, up to those of `need`, that fit;
    with one of each where nothing does. Layers are computed again only where one episode would not fit
    otherwise."""
    if need.checkpointed == "auto":
        alone = plan(student, teacher, replace(need, slots=1, micro_batch=1, checkpointed=False), memory)
        need = replace(need, checkpointed=not alone.holds("student"))
    one = replace(need, slots=1, micro_batch=1, judge_batch=min(1, need.judge_batch))

    def most(field: str, phase: str) -> int:
        """The largest value of a field that fits in its phase, where the others are at rest."""
        low, high = min(1, getattr(need, field)), getattr(need, field)
        while low < high:
            middle = (low + high + 1) // 2
            tried = plan(student, teacher, replace(one, **{field: middle}), memory)
            low, high = (middle, high) if tried.holds(phase) else (low, middle - 1)
        return low

    chosen = replace(
        need,
        slots=most("slots", "rollout"),
        micro_batch=most("micro_batch", "student"),
        judge_batch=most("judge_batch", "judge"),
    )
    return plan(student, teacher, chosen, memory)


def need_of(config: RunConfig, context: Sequence[SplitContext]) -> Need:
    """What a run of this config asks for. Episodes are as long as the expert's turns make them where the
    whole turn budget is played; `rollout.max_context` where that was not measured."""
    limit, turns = config.rollout.max_context, config.env.turn_budget
    measured = [split for split in context if not split.problem]
    opening = max((split.opening for split in measured), default=0)
    a_turn = max((split.turn for split in measured), default=0.0)
    episode = min(limit, round(opening + turns * a_turn)) if measured else limit
    query, speed = config.intervention.query, config.speed
    return Need(
        episode=episode,
        opening=opening,
        answers=min(turns * config.rollout.max_new_tokens, episode - opening),
        episodes=config.trainer.tasks_per_step * config.rollout.episodes_per_task,
        slots=speed.slots,
        micro_batch=speed.micro_batch,
        query=round(opening + a_turn + query.max_new_tokens) if query is not None and measured else 0,
        judge_batch=speed.judge_batch,
        chunk=speed.loss_chunk,
        compiled=speed.compile_loss is not False,
        checkpointed=speed.gradient_checkpointing,
        packed=speed.packing is not False,
    )


def _activations(need: Need, tokens: int) -> str:
    """What the activations of a pass are called."""
    of = f"{tokens:,} packed tokens" if need.packed else f"{need.micro_batch} episodes"
    return f"inputs of the layers of {of}" if need.checkpointed is True else f"activations of {of}"


def over_processes(need: Need, count: int, sharded: bool) -> Need:
    """What each of `count` processes asks for, of a run that asks for `need`; `sharded`: with FSDP."""
    return replace(need, episodes=math.ceil(need.episodes / count), shards=count if sharded else 1)


def _gib(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"


def _listed(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())

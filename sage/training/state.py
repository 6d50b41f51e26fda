"""The state of a training: what an optimizer step changes, and what a checkpoint holds.

Invariant: a checkpoint is complete. A training that goes on from one does what the uninterrupted training
would have done, bit for bit in the same number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from sage.policy.models.load import LanguageModel
from sage.records.activity import doing
from sage.records.clock import phase
from sage.signals import on_stop
from sage.training import checkpoint
from sage.training.background import Background
from sage.training.content import content_of
from sage.training.optimizer import StudentOptimizer, WeightChange, all_reduce_gradients
from sage.training.parts import Training
from sage.training.processes import Processes


@runtime_checkable
class Stateful(Protocol):
    """A part that carries something from step to step (a rule its rates, a judge its replies): a resumed run
    must know what the uninterrupted one would."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done since the start (resumed ones included), and how many of them changed weights.

    teacher_tokens: through the teacher in all of them; what `trainer.teacher_budget` limits.
    """

    steps: int = 0
    stepped: int = 0
    teacher_tokens: int = 0

    @property
    def skipped(self) -> int:
        return self.steps - self.stepped


@dataclass(frozen=True, slots=True)
class Update:
    """What an optimizer step did, in the columns of the steps table.

    learning_rate: what it used, or would have. grad_norm: before clipping; None where no turn was supervised,
    and weights, optimizer and warm-up were left alone. The movements of what plays, and of the masters behind
    it, are relative to the weights of the start; None but in the main process.
    """

    learning_rate: float
    grad_norm: float | None
    relative_weight_change: float | None
    relative_master_change: float | None

    @property
    def stepped(self) -> bool:
        return self.grad_norm is not None


@dataclass(slots=True)
class TrainState:
    """Weights, optimizer, warm-up, what rule and judge remember, random state and position."""

    training: Training
    optimizer: StudentOptimizer
    change: WeightChange
    stateful: Sequence[Stateful]
    folder: Path
    """Of the checkpoints."""
    progress: Progress = Progress()
    writer: Background = field(default_factory=Background)
    """Writes checkpoints while the training goes on; a block of it waits for them."""

    @classmethod
    def start_or_resume(cls, training: Training, folder: Path) -> Self:
        """Go on from the newest checkpoint in `folder`, or begin. Collective.

        Raises ValueError where the checkpoint's run began with other weights.
        """
        model, seed = training.models.student.model, training.schedule.seed
        optimizer = StudentOptimizer(model, training.trainer, training.processes.mesh, seed=seed)
        parts = (training.rules.intervention, training.judge)
        stateful = [part for part in parts if isinstance(part, Stateful)]
        state = cls(training, optimizer, WeightChange(model, folder), stateful, folder)
        if training.processes.is_main:
            checkpoint.drop_beyond_latest(folder)
        path = checkpoint.latest(folder)
        if path is not None:
            state._resume(path)
        return state

    @property
    def student(self) -> LanguageModel:
        return self.training.models.student

    @property
    def processes(self) -> Processes:
        return self.training.processes

    @property
    def is_spent(self) -> bool:
        """Whether `trainer.teacher_budget` has been reached."""
        budget = self.training.trainer.teacher_budget
        return budget is not None and self.progress.teacher_tokens >= budget

    @property
    def finished(self) -> bool:
        return self.progress.steps >= self.training.trainer.steps or self.is_spent

    def begin_step(self) -> int:
        """Clear the gradient; returns the number of the step, from 1 on. Raises what a checkpoint's write has
        raised meanwhile."""
        self.writer.check()
        self.optimizer.clear()
        return self.progress.steps + 1

    def apply(self, supervised: bool) -> Update:
        """Add up the gradient over all processes, clip, AdamW; nothing where no process `supervised` a turn.
        Collective."""
        learning_rate, grad_norm = self.optimizer.learning_rate, None
        if supervised:
            with phase("student"):
                if self.processes.count > 1 and self.optimizer.mesh is None:
                    all_reduce_gradients(self.optimizer.parameters, self.processes.all_reduce_tensor)
                grad_norm = self.optimizer.step()
        masters = self.change.of_masters(self.optimizer.masters) if self.optimizer.rounds else None
        weights = self.change.value() if self.processes.is_main else None
        return Update(learning_rate, grad_norm, weights, weights if masters is None else masters)

    def count(self, update: Update, teacher_tokens: int) -> None:
        """The step is made; `teacher_tokens` went through the teacher for it, in all processes together."""
        done = self.progress
        self.progress = Progress(
            done.steps + 1, done.stepped + update.stepped, done.teacher_tokens + teacher_tokens
        )

    def write_on_stop(self) -> None:
        """A signal that stops the run from now on finds the checkpoint of this state written first: in one
        process. Several do not stop at the same step, and `speed.checkpoint_every` serves them. Weights alone
        would be of no use to the run that goes on."""
        if self.processes.count == 1 and (self.finished or self.training.trainer.checkpoint == "full"):
            on_stop(partial(self._write, [checkpoint.random_state()], [self._remembered()], wait=True))

    def checkpoint_if_due(self) -> None:
        """Write a checkpoint every `speed.checkpoint_every` steps and after the last: begin to, where
        `speed.checkpoint_background` says so; `writer` waits for it. Collective."""
        every = self.training.speed.checkpoint_every
        if not self.finished and not (every and self.progress.steps % every == 0):
            return
        with doing("writing a checkpoint"):
            random_states = self.processes.gather([checkpoint.random_state()])
            self._write(random_states, self.processes.gather([self._remembered()]))
            self.processes.barrier()

    def _remembered(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.stateful]

    def _write(self, random_states: list[Any], remembered: list[Any], *, wait: bool = False) -> None:
        """Both have an entry per process. Collective; the main process writes, in a thread of its own unless
        it is to `wait`."""
        self.writer.wait()
        state = self.optimizer.state_dict(keep=self.processes.is_main) | {
            "stepped": self.progress.stepped,
            "teacher_tokens": self.progress.teacher_tokens,
            "start_norm": self.change.start_norm,
            "random": random_states,
            "memories": remembered,
        }
        if not self.processes.is_main:
            return
        background = self.training.speed.checkpoint_background and not wait
        content = content_of(self.progress.steps, self.student, state)
        write = partial(
            checkpoint.write,
            self.folder,
            content.copied() if background else content,
            self.training.trainer.checkpoint,
            finished=self.finished,
        )
        if background:
            self.writer.start(write)
        else:
            write()

    def _resume(self, path: Path) -> None:
        state, rank = checkpoint.load(path, self.student), self.processes.rank
        if abs(state["start_norm"] - self.change.start_norm) > 1e-6 * self.change.start_norm:
            raise ValueError(
                f"{path} belongs to a run that began with other student weights; "
                "resume with the student it was started with, or use launch.on_existing=rerun."
            )
        if "optimizer" in state:
            self.optimizer.load_state_dict(state)
        else:
            self.optimizer.load_masters(state["masters"])
        if "random" in state and rank < len(state["random"]):
            checkpoint.set_random_state(state["random"][rank])
            for part, remembered in zip(self.stateful, state["memories"][rank], strict=True):
                part.load_state_dict(remembered)
        self.progress = Progress(int(state["step"]), int(state["stepped"]), int(state["teacher_tokens"]))

"""What a training is made of. None of it changes from step to step but the student's weights and what the
rule and the judge remember; what does change is a `TrainState`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sage.config.schema import SpeedSettings, TrainerSettings
from sage.episode import Episode
from sage.objective.intervention.base import Intervention, JudgeFn
from sage.policy.seat import Job
from sage.training.batch import Models
from sage.training.curriculum import Curriculum
from sage.training.gradient import Objective
from sage.training.jobs import Schedule
from sage.training.processes import ALONE, Processes

Play = Callable[[Sequence[Job], int], list[Episode]]
"""Plays the jobs with the models as they are now, each for at most that many turns; order is kept."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The chosen components of a run."""

    intervention: Intervention
    curriculum: Curriculum
    objective: Objective


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """Good episodes beside the student's own: who plays one for each task, and the weight of imitating it."""

    play: Callable[[Sequence[Job]], list[Episode]]
    weight: float


def _unmarked(_episodes: Sequence[Episode], _step: int) -> None:
    """The teacher is spoilt nowhere."""


@dataclass(frozen=True, slots=True)
class Training:
    """Models, rules, games and players of one training.

    `models.student` must hold the weights the run starts from, also when it is resumed: the weight change is
    measured against them. `judge` is the rule's `ask`. Where more of a step's episodes than the share
    `max_not_ok` are not ok (None: any number may be), or all, the step is not made.
    """

    models: Models
    rules: Rules
    trainer: TrainerSettings
    speed: SpeedSettings
    schedule: Schedule
    play: Play
    judge: JudgeFn
    processes: Processes = ALONE
    demonstrations: Demonstrations | None = None
    max_not_ok: float | None = None
    mark: Callable[[Sequence[Episode], int], None] = _unmarked
    """Says of the turns of a step's episodes where the teacher is spoilt (`sage.teacher.spoil.mark`)."""

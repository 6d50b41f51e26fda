"""Imitation of good episodes beside the student's own (the other half of StableOPD): λ mean −log p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sage.episode import Decision, Episode, Label
from sage.objective.confidence.base import Unweighted
from sage.objective.divergence.estimators import NegativeLogLikelihood
from sage.objective.normalization import Unnormalized
from sage.policy.seat import Job
from sage.records.clock import phase
from sage.training.batch import Models, TrainingEpisode, lengths_of, score_batch
from sage.training.gradient import BatchLoss, Objective, accumulate_gradient
from sage.training.not_ok import refuse_not_ok_anywhere
from sage.training.parts import Training

IMITATION = Objective(
    Unweighted(name="none", teacher_temperature=1.0),
    Unnormalized(name="none", scope="batch", epsilon=1e-8, z_max=None),
    NegativeLogLikelihood(name="nll"),
)
"""The objective of demonstrations: mean −log p over their tokens."""


@dataclass(frozen=True, slots=True)
class Imitated:
    """The loss of a step's demonstrations over all processes, and those of this process that broke."""

    loss: BatchLoss
    not_ok: int


def add_demonstrations(training: Training, step: int, jobs: Sequence[Job]) -> Imitated | None:
    """Have a demonstration played of each task of this process's `jobs`, and add λ ∇ mean −log p over the
    tokens of the won ones to the student's gradient. Collective.

    None where there are no demonstrations. The loss's `teacher_tokens` are those that this process's have
    cost. Raises TooManyNotOk, see `Training.max_not_ok`.
    """
    given = training.demonstrations
    if given is None:
        return None
    first = [job for job in jobs if training.schedule.is_first_rollout(job)]
    with phase("rollout"):
        shown = given.play(first) if first else []
    if training.max_not_ok is not None:
        what = f"the demonstrations of training step {step}"
        refuse_not_ok_anywhere(training.processes, shown, training.max_not_ok, what, step - 1)
    return Imitated(_imitate(training, shown, given.weight), sum(not e.status.is_ok for e in shown))


def _imitate(training: Training, episodes: Sequence[Episode], weight: float) -> BatchLoss:
    models = training.models
    batch = [
        TrainingEpisode(episode, [Decision(Label.ALWAYS, weight) for _ in episode.turns])
        for episode in episodes
        if episode.won and episode.turns
    ]
    # −log p looks at no teacher: the student stands in for it, and need not be asked what it thinks.
    student, micro_batch = models.student, training.speed.micro_batch
    alone = Models(student, student, models.vocabulary, None, passes=models.passes)
    weight_VD = student.model.get_output_embeddings().weight
    width = weight_VD.shape[1]
    nothing = {id(one.episode): weight_VD.new_zeros(sum(lengths_of(one)), width) for one in batch}
    scored = score_batch(alone, IMITATION.confidence, batch, micro_batch=micro_batch, states=nothing)
    loss = accumulate_gradient(
        alone, IMITATION, batch, micro_batch=micro_batch, processes=training.processes, scored=scored
    )
    return replace(loss, teacher_tokens=sum(episode.teacher_tokens for episode in episodes))

"""The gradient of one optimizer batch: teacher pass, selective weights, normalization, weighted divergence.

Invariant (method.md section 5): the loss and its gradient depend on the batch alone, not on how it is split
over micro-batches and processes. So N and Σ s are added up over everything before the first backward, and
the gradients are sums, never means over parts. Shape suffixes: T student tokens of one episode.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from sage.episode import Episode
from sage.errors import NotFinite
from sage.objective.chunked import ChunkedResult, Projected, chunked_divergence
from sage.objective.confidence.base import Confidence, TokenStats
from sage.objective.divergence.base import Divergence
from sage.objective.divergence.blend import blended
from sage.objective.normalization import Normalization, WeightSums
from sage.objective.weights import selective_weights, token_weights, weight_sums
from sage.policy.models.failures import memory_for, smaller_passes
from sage.policy.models.hidden_states import head, hidden_states
from sage.policy.models.work import head_operations
from sage.records.activity import did, expect
from sage.records.clock import phase, tally
from sage.teacher.score import TeacherPass, View, head_of, own_view
from sage.training.batch import Models, Scored, TrainingEpisode, lengths_of, mean_of, score_batch
from sage.training.processes import ALONE, Processes
from sage.training.tokens import note_confidence, note_student, note_weights


@dataclass(frozen=True, slots=True)
class Objective:
    """What turns decisions into a loss."""

    confidence: Confidence
    normalization: Normalization
    divergence: Divergence

    def reads_all_turns(self, log_skipped: bool) -> bool:
        """Whether the models are asked about turns of weight 0 too."""
        return log_skipped or self.normalization.flat or self.confidence.compares_turns


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """Loss L over all processes; `z` is None where nothing is supervised, and then there is no gradient.

    sums: over all processes, in tokens. teacher_tokens: through this process's scoring pass.
    """

    loss: float
    z: float | None
    sums: WeightSums
    teacher_tokens: int

    @property
    def supervised(self) -> bool:
        """Whether any turn in any process has a weight, so that there is a gradient."""
        return self.z is not None


EpisodeStream = Callable[[Episode], random.Random]
"""The random stream of one episode, which depends on nothing but (run seed, step, task, rollout)."""


def unseeded(episode: Episode) -> random.Random:
    """The stream of a batch that belongs to no run."""
    return random.Random(f"{episode.task.id}/{episode.rollout_index}")


def accumulate_gradient(
    models: Models,
    objective: Objective,
    batch: Sequence[TrainingEpisode],
    *,
    micro_batch: int,
    processes: Processes = ALONE,
    log_skipped: bool = True,
    scored: Scored | None = None,
    stream: EpisodeStream = unseeded,
) -> BatchLoss:
    """Add this process's share of ∂L/∂θ to the student's `.grad` and fill in scores and weights of `batch`.
    Collective.

    `batch` holds this process's ok episodes with their decisions. Nothing is added where no turn in any
    process is supervised. `log_skipped` also scores turns of weight 0 for the records; without it they cost
    nothing in either model's vocabulary projection, and an episode without a supervised turn costs nothing,
    but for a confidence that `compares_turns`: that reads the models at every turn. The loss is the same.
    `scored` is the batch's teacher pass where a rule has needed it already. `stream` gives the random stream
    of an episode to confidence rules that draw. Raises OutOfMemory where a pass does not fit, and NotFinite
    where the loss is no number; the gradient is then of no use.
    """
    if scored is None:
        all_turns = objective.reads_all_turns(log_skipped)
        scored = score_batch(
            models, objective.confidence, batch, micro_batch=micro_batch, only_supervised=not all_turns
        )
    weights = [
        _weights(sample, stats, objective.confidence, stream)
        for group, of_group in zip(scored.groups, scored.stats, strict=True)
        for sample, stats in zip(group, of_group, strict=True)
    ]
    here = WeightSums.total([weight_sums(weights_T) for weights_T in weights])
    sums = WeightSums(*processes.all_reduce_sum((here.tokens, here.active, here.weighted)))
    scaled, z = token_weights(weights, sums, objective.normalization)

    share = 0.0
    remaining = iter(scaled)
    with phase("student"), memory_for("the student's training pass", smaller_passes(micro_batch)):
        expect(len(batch), "episodes")
        for group, passes in zip(scored.groups, scored.passes, strict=True):
            of_group = [next(remaining) for _ in group]
            share += _student_pass(models, objective, group, passes, of_group, log_skipped)
            did(len(group), tokens=sum(map(len, of_group)))
            for sample, weights_T in zip(group, of_group, strict=True):
                effective_T = weights_T * sums.tokens
                note_weights(sample, effective_T)
                per_turn = effective_T.split(lengths_of(sample))
                sample.effective_weights = [
                    float(turn_T.mean()) if len(turn_T) else 0.0 for turn_T in per_turn
                ]
    (loss,) = processes.all_reduce_sum((share,))
    if not math.isfinite(loss):
        raise NotFinite(
            f"The loss of the batch is {loss}: a model's logits are not finite; "
            "lower trainer.learning_rate or load the models in float32."
        )
    return BatchLoss(loss, z, sums, scored.teacher_tokens)


def _weights(
    sample: TrainingEpisode, turns: list[TokenStats], confidence: Confidence, stream: EpisodeStream
) -> Tensor:
    """s_T of one episode (float64, CPU); also notes c_t in the episode's turn scores."""
    # NaN marks tokens the teacher was not asked about; a turn without tokens has nothing to ask about.
    scored = [t for t, stats in enumerate(turns) if not stats.top1_T.isnan().any()]
    weights = [decision.weight for decision in sample.decisions]
    weighed = confidence.weigh_episode(
        [turns[t] for t in scored], [weights[t] for t in scored], stream(sample.episode)
    )
    by_turn: list[Tensor | None] = [None] * len(turns)
    for t, confidence_T in zip(scored, weighed, strict=True):
        by_turn[t] = confidence_T
        sample.scores[t].confidence = mean_of(confidence_T)
    note_confidence(sample, by_turn, lengths_of(sample))
    return selective_weights(weights, by_turn, lengths_of(sample))


def _student_pass(
    models: Models,
    objective: Objective,
    group: Sequence[TrainingEpisode],
    passes: Sequence[TeacherPass],
    weights: Sequence[Tensor],
    log_skipped: bool,
) -> float:
    """Forward and backward of one micro-batch; returns its share of the loss."""
    student = models.student
    views = [own_view(sample.episode) for sample in group]
    if log_skipped:
        turns = [list(range(len(view.spans))) for view in views]
    else:
        turns = [_active_turns(view, weights_T) for view, weights_T in zip(views, weights, strict=True)]
    if not any(turns):
        return 0.0
    needed = torch.cat([_token_mask(view, chosen) for view, chosen in zip(views, turns, strict=True)])
    positions = [view.positions(chosen) for view, chosen in zip(views, turns, strict=True)]
    weight_T = torch.cat(list(weights))[needed]
    target_T = torch.tensor([i for view in views for i in view.targets()])[needed]
    teacher_TE = torch.cat([done.hidden_TE for done in passes])[needed.to(models.teacher.device)]
    target = _target(models, objective, teacher_TE, views, positions)
    with torch.set_grad_enabled(bool((weight_T != 0).any())):
        hidden_TD = hidden_states(student, [view.ids for view in views], positions)
        result = chunked_divergence(
            objective.divergence,
            hidden_TD,
            head(student),
            target,
            target_T.to(student.device),
            weight_T.to(student.device, torch.promote_types(hidden_TD.dtype, torch.float32)),
            vocabulary=models.vocabulary,
            chunking=replace(models.passes.chunking, log_unweighted=log_skipped),
        )
    _tally_heads(models, hidden_TD, teacher_TE, result.weighted_sum.requires_grad)
    if result.weighted_sum.requires_grad:
        result.weighted_sum.backward()
    _note(group, result, needed)
    return float(result.weighted_sum.detach())


def _tally_heads(models: Models, hidden_TD: Tensor, teacher_TE: Tensor, trains: bool) -> None:
    """Both projections of the loss: the teacher's forward alone."""
    own = head_operations(models.vocabulary, hidden_TD.shape[-1], len(hidden_TD), 3 if trains else 1)
    tally(operations=own + head_operations(models.vocabulary, teacher_TE.shape[-1], len(teacher_TE)))


def _target(
    models: Models,
    objective: Objective,
    teacher_TE: Tensor,
    views: Sequence[View],
    positions: Sequence[Sequence[int]],
) -> Projected:
    """What the student is compared with: the teacher, or its blend with π_ref, each on its own device.

    Raises ValueError where a reference model is wanted and there is none.
    """
    anchor, teacher = objective.divergence.anchor, Projected(teacher_TE, head_of(models.teacher))
    if anchor is None:
        return teacher
    if models.reference is None:
        raise ValueError(
            f"divergence={objective.divergence.name} needs a reference model; make the pair with sample."
        )
    with torch.no_grad():
        reference_TR = hidden_states(models.reference, [view.ids for view in views], positions)
    return blended(teacher, Projected(reference_TR, head(models.reference)), anchor)


def _active_turns(view: View, weights_T: Tensor) -> list[int]:
    parts = weights_T.split([end - start for start, end in view.spans])
    return [t for t, part_T in enumerate(parts) if bool((part_T != 0).any())]


def _token_mask(view: View, turns: Sequence[int]) -> Tensor:
    """True at the student tokens of `turns`, over all student tokens of the episode."""
    chosen = set(turns)
    return torch.tensor(
        [t in chosen for t, (s, e) in enumerate(view.spans) for _ in range(s, e)], dtype=torch.bool
    )


def _note(group: Sequence[TrainingEpisode], result: ChunkedResult, needed: Tensor) -> None:
    """Per-turn means of what the student pass computed."""
    columns = []
    for values in (result.student_logprob_T, result.student_entropy_T, result.divergence_T):
        full_T = torch.full((len(needed),), math.nan, dtype=torch.float64)
        full_T[needed] = values.double().cpu()
        columns.append(full_T.split([length for sample in group for length in lengths_of(sample)]))
    scores = [turn_score for sample in group for turn_score in sample.scores]
    for turn_score, logprob_T, entropy_T, divergence_T in zip(scores, *columns, strict=True):
        turn_score.student_logprob = mean_of(logprob_T)
        turn_score.student_entropy = mean_of(entropy_T)
        turn_score.divergence = mean_of(divergence_T)
    per_turn = zip(*columns, strict=True)
    for sample in group:
        note_student(sample, list(islice(per_turn, len(sample.scores))))

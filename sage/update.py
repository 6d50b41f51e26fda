"""The gradient of one optimizer batch: teacher pass, selective weights, normalization, weighted divergence.

Invariant (method.md section 5): the loss and its gradient depend on the batch alone, not on how it is split
over micro-batches and processes. So N and Σ s are added up over everything before the first backward, and
the gradients are sums, never means over parts. Shape suffixes: T student tokens of one episode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sage.episode import Decision, Episode, TurnScore
from sage.objective.chunked import ChunkedResult, chunked_divergence
from sage.objective.confidence import Confidence, TokenStats
from sage.objective.divergence import Divergence
from sage.objective.normalization import Normalization, WeightSums
from sage.objective.weights import selective_weights, token_weights, weight_sums
from sage.policy.dialogue import Dialogue
from sage.policy.hidden import check_head, head, hidden_states
from sage.policy.model import LanguageModel
from sage.records.clock import PhaseClock
from sage.teacher.score import TeacherPass, View, own_view, score, teacher_dialogue, teacher_view
from sage.teacher.vocabulary import shared_vocabulary


@dataclass(frozen=True, slots=True)
class Pair:
    """Student and teacher that share a vocabulary of ids 0..vocabulary-1; made by `pair`.

    `dialogue` re-renders conversations for the teacher, None where its template is the student's.
    """

    student: LanguageModel
    teacher: LanguageModel
    vocabulary: int
    dialogue: Dialogue | None


def pair(student: LanguageModel, teacher: LanguageModel) -> Pair:
    """Raises ModelError, in one sentence, where the two cannot be compared token by token."""
    vocabulary = shared_vocabulary(student, teacher)
    for lm in (student, teacher):
        check_head(lm)
    return Pair(student, teacher, vocabulary, teacher_dialogue(student, teacher))


@dataclass(frozen=True, slots=True)
class Objective:
    """What turns decisions into a loss."""

    confidence: Confidence
    normalization: Normalization
    divergence: Divergence


@dataclass(slots=True)
class Played:
    """A training episode and what is said about its turns, in order; nothing where it is not ok."""

    episode: Episode
    decisions: list[Decision] = field(default_factory=list)
    scores: list[TurnScore] = field(default_factory=list)
    effective_weights: list[float] = field(default_factory=list)
    """Z s_t, mean over the turn's tokens."""


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """Loss L over all processes; `z` is None where nothing is supervised, and then there is no gradient.

    sums: over all processes, in tokens. teacher_tokens: through this process's scoring pass.
    """

    loss: float
    z: float | None
    sums: WeightSums
    teacher_tokens: int


AddUp = Callable[[Sequence[float]], list[float]]
"""Adds numbers up over all processes, element by element."""


def just_here(numbers: Sequence[float]) -> list[float]:
    """`AddUp` of a single process."""
    return list(numbers)


def accumulate_gradient(
    models: Pair,
    objective: Objective,
    batch: Sequence[Played],
    *,
    micro_batch: int,
    add_up: AddUp = just_here,
    clock: PhaseClock | None = None,
    log_skipped: bool = True,
    chunk_tokens: int | None = None,
) -> BatchLoss:
    """Add this process's share of ∂L/∂θ to the student's `.grad` and fill in scores and weights of `batch`.

    `batch` holds this process's ok episodes with their decisions. Nothing is added where no turn in any
    process is supervised. `log_skipped` also scores turns of weight 0 for the records; without it they cost
    nothing in either model's vocabulary projection, and an episode without a supervised turn costs nothing.
    """
    clock = clock or PhaseClock()
    groups = _groups(batch, micro_batch)
    passes: list[list[TeacherPass]] = []
    teacher_tokens = 0
    with clock.phase("teacher"):
        for group in groups:
            views = [teacher_view(played.episode, models.dialogue) for played in group]
            turns = [_supervised(played, log_skipped) for played in group]
            passes.append(
                score(
                    models.teacher,
                    views,
                    turns,
                    vocabulary=models.vocabulary,
                    temperature=objective.confidence.teacher_temperature,
                    chunk_tokens=chunk_tokens,
                )
            )
            teacher_tokens += sum(
                max(v.positions(chosen), default=-1) + 1 for v, chosen in zip(views, turns, strict=True)
            )
        weights = [
            [_weights(played, done, objective.confidence) for played, done in zip(group, part, strict=True)]
            for group, part in zip(groups, passes, strict=True)
        ]

    flat = [weights_T for part in weights for weights_T in part]
    here = WeightSums.total([weight_sums(weights_T) for weights_T in flat])
    sums = WeightSums(*add_up((here.tokens, here.active, here.weighted)))
    scaled, z = token_weights(flat, sums, objective.normalization)

    loss = 0.0
    remaining = iter(scaled)
    with clock.phase("student"):
        for group, part in zip(groups, passes, strict=True):
            token_weights_T = [next(remaining) for _ in group]
            loss += _student_pass(models, objective, group, part, token_weights_T, log_skipped, chunk_tokens)
            for played, weights_T in zip(group, token_weights_T, strict=True):
                per_turn = (weights_T * sums.tokens).split(_lengths(played))
                played.effective_weights = [
                    float(turn_T.mean()) if len(turn_T) else 0.0 for turn_T in per_turn
                ]
    (loss,) = add_up((loss,))
    return BatchLoss(loss, z, sums, teacher_tokens)


def _groups(batch: Sequence[Played], micro_batch: int) -> list[list[Played]]:
    """Episodes of similar length together, so that little is padded."""
    ordered = sorted(batch, key=lambda played: len(played.episode.token_ids), reverse=True)
    return [ordered[i : i + micro_batch] for i in range(0, len(ordered), micro_batch)]


def _lengths(played: Played) -> list[int]:
    return [turn.n_tokens for turn in played.episode.turns]


def _supervised(played: Played, log_skipped: bool) -> list[int]:
    """Indices of the turns that the teacher has to score."""
    return [t for t, decision in enumerate(played.decisions) if log_skipped or decision.weight > 0]


def _weights(played: Played, done: TeacherPass, confidence: Confidence) -> Tensor:
    """s_T of one episode (float64, CPU); also starts the episode's turn scores."""
    columns = [x.double().cpu() for x in (done.stats.top1_T, done.stats.entropy_T, done.stats.logprob_T)]
    lengths = _lengths(played)
    turns = [TokenStats(*parts) for parts in zip(*(c.split(lengths) for c in columns), strict=True)]
    # NaN marks tokens the teacher was not asked about; a turn without tokens has nothing to ask about.
    scored = [t for t, stats in enumerate(turns) if not stats.top1_T.isnan().any()]
    weighed = confidence.weigh_batch([turns[t] for t in scored])
    by_turn: list[Tensor | None] = [None] * len(turns)
    played.scores = [TurnScore() for _ in turns]
    for t, confidence_T in zip(scored, weighed, strict=True):
        by_turn[t] = confidence_T
        turn_score, stats = played.scores[t], turns[t]
        turn_score.confidence = _mean(confidence_T)
        turn_score.top1 = _mean(stats.top1_T)
        turn_score.teacher_entropy = _mean(stats.entropy_T)
        turn_score.teacher_logprob = _mean(stats.logprob_T)
    return selective_weights([decision.weight for decision in played.decisions], by_turn, lengths)


def _student_pass(
    models: Pair,
    objective: Objective,
    group: Sequence[Played],
    passes: Sequence[TeacherPass],
    weights: Sequence[Tensor],
    log_skipped: bool,
    chunk_tokens: int | None,
) -> float:
    """Forward and backward of one micro-batch; returns its share of the loss."""
    student = models.student
    views = [own_view(played.episode) for played in group]
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
    with torch.set_grad_enabled(bool((weight_T != 0).any())):
        hidden_TD = hidden_states(student, [view.ids for view in views], positions)
        result = chunked_divergence(
            objective.divergence,
            hidden_TD,
            head(student),
            teacher_TE.to(student.device),
            head(models.teacher),
            target_T.to(student.device),
            weight_T.to(student.device, torch.promote_types(hidden_TD.dtype, torch.float32)),
            vocabulary=models.vocabulary,
            chunk_tokens=chunk_tokens,
            log_unweighted=log_skipped,
        )
    if result.weighted_sum.requires_grad:
        result.weighted_sum.backward()
    _note(group, result, needed)
    return float(result.weighted_sum.detach())


def _active_turns(view: View, weights_T: Tensor) -> list[int]:
    parts = weights_T.split([end - start for start, end in view.spans])
    return [t for t, part_T in enumerate(parts) if bool((part_T != 0).any())]


def _token_mask(view: View, turns: Sequence[int]) -> Tensor:
    """True at the student tokens of `turns`, over all student tokens of the episode."""
    chosen = set(turns)
    return torch.tensor(
        [t in chosen for t, (s, e) in enumerate(view.spans) for _ in range(s, e)], dtype=torch.bool
    )


def _note(group: Sequence[Played], result: ChunkedResult, needed: Tensor) -> None:
    """Per-turn means of what the student pass computed."""
    columns = []
    for values in (result.student_logprob_T, result.student_entropy_T, result.divergence_T):
        full_T = torch.full((len(needed),), math.nan, dtype=torch.float64)
        full_T[needed] = values.double().cpu()
        columns.append(full_T.split([length for played in group for length in _lengths(played)]))
    scores = [turn_score for played in group for turn_score in played.scores]
    for turn_score, logprob_T, entropy_T, divergence_T in zip(scores, *columns, strict=True):
        turn_score.student_logprob = _mean(logprob_T)
        turn_score.student_entropy = _mean(entropy_T)
        turn_score.divergence = _mean(divergence_T)


def _mean(values_T: Tensor) -> float | None:
    """Mean over the tokens that have a value; None where none has."""
    mean = float(values_T.nanmean()) if len(values_T) else math.nan
    return None if math.isnan(mean) else mean

"""What is recorded of one optimizer step: its row of the steps table, over the episodes of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sage.episode import Label, Status
from sage.records.clock import take_seconds, take_work
from sage.records.recorder import StepReport
from sage.records.rows import label_shares
from sage.training.batch import TrainingEpisode
from sage.training.demonstrations import Imitated
from sage.training.gradient import BatchLoss
from sage.training.parts import Training
from sage.training.speed import speed_columns
from sage.training.state import Update

TIMED = ("rollout", "judge", "teacher", "student", "other")
"""Phases with a column of their own in the steps table."""


def report_of(
    step: int,
    mine: Sequence[TrainingEpisode],
    loss: BatchLoss,
    imitated: Imitated | None,
    update: Update,
    training: Training,
) -> StepReport:
    """Of a step whose episodes in this process are `mine`, ok or not. Collective."""
    processes = training.processes
    batch = processes.gather(mine)
    shown = imitated.loss if imitated else None
    here = (
        loss.teacher_tokens,
        shown.teacher_tokens if shown else 0,
        imitated.not_ok if imitated else 0,
    )
    teacher_tokens, shown_cost, shown_not_ok = map(int, processes.all_reduce_sum(here))
    row = step_values(batch, loss) | {
        "teacher_tokens": teacher_tokens,
        "demonstration_tokens": int(shown.sums.tokens) if shown else 0,
        "demonstration_loss": shown.loss if shown else 0.0,
        "demonstration_not_ok": shown_not_ok,
        "stepped": update.stepped,
        **asdict(update),
        **seconds_of_step(),
    }
    row["teacher_play_tokens"] += shown_cost
    row |= speed_columns(row, take_work(), training.models, training.speed)
    return StepReport(step, row, batch)


def step_values(batch: Sequence[TrainingEpisode], loss: BatchLoss) -> dict[str, Any]:
    """Columns of the steps table that follow from the episodes and the loss."""
    ok = [one for one in batch if one.episode.status.is_ok]
    tokens = loss.sums.tokens
    return {
        "loss": loss.loss,
        "z": loss.z,
        "mean_weight": loss.sums.weighted / tokens if tokens else None,
        "mean_divergence": _mean_divergence(ok),
        "episodes": len(ok),
        "episodes_not_ok": len(batch) - len(ok),
        "episodes_context_full": sum(one.episode.status is Status.CONTEXT_FULL for one in ok),
        "success_rate": sum(one.episode.won for one in ok) / len(ok) if ok else None,
        "turns": sum(len(one.episode.turns) for one in ok),
        "student_tokens": int(tokens),
        "active_tokens": int(loss.sums.active),
        **_judged(ok),
        "teacher_play_tokens": sum(one.episode.teacher_tokens for one in batch),
        **label_shares([one.decisions for one in ok]),
    }


def seconds_of_step() -> dict[str, float]:
    """Columns: the wall time since the step before, in this process."""
    seconds = take_seconds()
    return {f"seconds_{name}": seconds[name] for name in TIMED}


def _mean_divergence(ok: Sequence[TrainingEpisode]) -> float | None:
    """Over the tokens of all turns that have one."""
    scored = [
        (turn.n_tokens, score.divergence)
        for one in ok
        for turn, score in zip(one.episode.turns, one.scores, strict=True)
        if score.divergence is not None
    ]
    tokens = sum(n for n, _ in scored)
    return sum(n * value for n, value in scored) / tokens if tokens else None


def _judged(ok: Sequence[TrainingEpisode]) -> dict[str, int]:
    """What the teacher was asked, and at what cost."""
    decisions = [decision for one in ok for decision in one.decisions]
    asked = [d for d in decisions if d.reply or d.label is Label.FALLBACK]
    return {
        "judge_queries": sum(not d.cached for d in asked),
        "judge_cached": sum(d.cached for d in asked),
        "judge_tokens": sum(d.judge_tokens for d in asked),
    }

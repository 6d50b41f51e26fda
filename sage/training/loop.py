"""The training loop of method.md section 6: play, judge, score, weigh, step.

    done = distill(Training(...), folder, on_step=recorder.stepped, after_step=evaluate)

Each process plays and differentiates its share of every batch; sums and gradients are added up over all of
them, so one process and several do the same. Everything random is keyed by (seed, step, task, rollout,
turn), and a checkpoint is complete, so a resumed run does what the uninterrupted one would have done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sage.episode import Episode
from sage.policy.seat import Job
from sage.records.activity import making_step
from sage.records.clock import phase
from sage.records.recorder import StepReport
from sage.signals import defer_signals, on_stop
from sage.training.batch import TrainingEpisode
from sage.training.demonstrations import add_demonstrations
from sage.training.gradient import BatchLoss, EpisodeStream, accumulate_gradient
from sage.training.judging import Judged, judge_batch
from sage.training.parts import Training
from sage.training.report import report_of
from sage.training.state import Progress, TrainState
from sage.training.tokens import sampled, wanted


def distill(
    training: Training,
    checkpoints: Path,
    on_step: Callable[[StepReport], None],
    after_step: Callable[[int, bool], None] | None = None,
) -> Progress:
    """Train the student in place up to optimizer step `trainer.steps`, from the newest checkpoint on, or up
    to the step that reaches `trainer.teacher_budget`. Collective.

    `on_step` is called in the main process only, `after_step` in every process, with the step and whether it
    was the last (an evaluation goes there); the checkpoint of a step is written after both, so that what it
    counts as done is recorded, and a resumed run reports the steps after its checkpoint again. Episodes that
    are not ok are reported and take no part in the loss; TooManyNotOk is raised where `Training.max_not_ok`
    says so. A step in which no turn is supervised leaves weights, optimizer and warm-up alone, and is
    counted. A signal that stops the run finds the checkpoint of the last whole step written. A checkpoint
    may be written while the next step is made; this waits for the last one, and raises what it has raised.
    """
    state = TrainState.start_or_resume(training, checkpoints)
    if state.progress.steps and after_step is not None:
        after_step(state.progress.steps, state.finished)  # a signal may have come in the middle of it
    with state.writer:
        while not state.finished:
            step = state.begin_step()
            with making_step(step, training.trainer.steps):
                jobs = jobs_here(training, step)
                batch = play_batch(training, step, jobs)
                judged = judge_batch(training, step, batch)
                loss = add_gradient(training, step, judged)
                imitated = add_demonstrations(training, step, jobs)
                with defer_signals():
                    moved = loss.supervised or (imitated is not None and imitated.loss.supervised)
                    update = state.apply(moved)
                    report = report_of(step, batch, loss, imitated, update, training)
                    state.count(update, report.through_teacher)
                    if training.processes.is_main:
                        on_step(report)
                    state.write_on_stop()
            if after_step is not None:
                after_step(step, state.finished)
            state.checkpoint_if_due()
    on_stop(None)
    return state.progress


def jobs_here(training: Training, step: int) -> list[Job]:
    """This process's share of the step's jobs."""
    schedule = training.schedule
    last_turns = training.rules.curriculum.last_turns(step, schedule.turn_budget)
    return [replace(job, last_turns=last_turns) for job in training.processes.share(schedule.jobs(step))]


def play_batch(training: Training, step: int, jobs: Sequence[Job]) -> list[TrainingEpisode]:
    """The episodes of `jobs`, ok or not."""
    limit = training.rules.curriculum.turn_limit(step, training.schedule.turn_budget)
    with phase("rollout"):
        episodes = training.play(jobs, limit) if jobs else []
    chosen = wanted(training.schedule.jobs(step), training.trainer.log_tokens)
    return [sampled(episode, chosen) for episode in episodes]


def add_gradient(training: Training, step: int, judged: Judged) -> BatchLoss:
    """Score, weigh, differentiate: this process's share of the step's gradient. Collective."""
    return accumulate_gradient(
        training.models,
        training.rules.objective,
        judged.batch,
        micro_batch=training.speed.micro_batch,
        processes=training.processes,
        log_skipped=training.trainer.log_skipped,
        scored=judged.scored,
        stream=episode_streams(training.schedule.seed, step),
    )


def episode_streams(seed: int, step: int) -> EpisodeStream:
    """A random stream per episode that depends on nothing but (seed, step, task, rollout)."""

    def stream(episode: Episode) -> random.Random:
        key = (seed, "confidence", step, episode.task.id, episode.rollout_index)
        return random.Random("/".join(map(str, key)))

    return stream

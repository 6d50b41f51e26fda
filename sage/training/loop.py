"""The training loop of method.md section 6: play, decide, score, weigh, step.

Each process plays and differentiates its share of every batch; sums and gradients are added up over all of
them, so one process and several do the same. Everything random is keyed by (seed, step, task, rollout,
turn), and a checkpoint is complete, so a resumed run does what the uninterrupted one would have done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sage.config.schema import SpeedSettings, TrainerSettings
from sage.episode import Decision, Episode, Label, Status, Task
from sage.objective.confidence.base import Unweighted
from sage.objective.divergence.estimators import NegativeLogLikelihood
from sage.objective.intervention.base import Ask, Intervention, JudgeFailure, Stream, TurnContext
from sage.objective.normalization import Unnormalized
from sage.policy.seat import Job
from sage.records.clock import phase, take_seconds
from sage.records.ledger import TEACHER
from sage.records.rows import label_shares
from sage.signals import defer_signals, on_stop
from sage.training import checkpoint
from sage.training.batch import Pair, Played, score_batch
from sage.training.curriculum import Curriculum
from sage.training.gradient import BatchLoss, EpisodeStream, Objective, accumulate_gradient
from sage.training.not_ok import refuse_not_ok, too_many
from sage.training.optimizer import StudentOptimizer, WeightChange, all_reduce_gradients
from sage.training.processes import Processes

Play = Callable[[Sequence[Job], int], list[Episode]]
"""Plays the jobs with the models as they are now, each for at most that many turns; order is kept."""


TIMED = ("rollout", "judge", "teacher", "student", "other")
"""Phases with a column of their own in the steps table."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The chosen components of a run."""

    intervention: Intervention
    curriculum: Curriculum
    objective: Objective


@runtime_checkable
class Stateful(Protocol):
    """A part that carries something from step to step (a rule its rates, a judge its replies): a resumed run
    must know what the uninterrupted one would."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Gold:
    """Good episodes beside the student's own: who plays one for each task, and the weight of imitating it."""

    play: Callable[[Sequence[Job]], list[Episode]]
    weight: float


IMITATION = Objective(
    Unweighted(name="none", teacher_temperature=1.0),
    Unnormalized(name="none", scope="batch", epsilon=1e-8, z_max=None),
    NegativeLogLikelihood(name="nll"),
)
"""The objective of golden episodes: mean −log p over their tokens."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step: `row` has columns of the steps table, `played` the episodes of all processes."""

    step: int
    row: dict[str, Any]
    played: list[Played]


@dataclass(frozen=True, slots=True)
class Summary:
    """Steps done since the start (resumed ones included), and how many of them changed weights.

    teacher_tokens: through the teacher in all of them; what `trainer.teacher_budget` limits.
    """

    steps: int
    stepped: int
    teacher_tokens: int = 0

    @property
    def skipped(self) -> int:
        return self.steps - self.stepped


def distill(
    *,
    models: Pair,
    rules: Rules,
    trainer: TrainerSettings,
    speed: SpeedSettings,
    seed: int,
    tasks: Sequence[Task],
    episodes_per_task: int,
    turn_budget: int,
    play: Play,
    ask: Ask,
    processes: Processes,
    checkpoints: Path,
    on_step: Callable[[StepReport], None],
    after_step: Callable[[int, bool], None] | None = None,
    gold: Gold | None = None,
    max_not_ok: float | None = None,
) -> Summary:
    """Train the student in place up to optimizer step `trainer.steps`, from the newest checkpoint on, or up
    to the step that reaches `trainer.teacher_budget`.

    `models.student` must hold the weights the run starts from, also when it is resumed: the weight change is
    measured against them. `on_step` is called in the main process only, `after_step` in every process, with
    the step and whether it was the last (an evaluation goes there); the checkpoint of a step is written after
    both, so that what it counts as done is recorded, and a resumed run reports the steps after its checkpoint
    again. Episodes that are not ok are reported and take no part in the loss; where more of a step are than
    the share `max_not_ok` (None: any number may be), or all, the step is not made (TooManyNotOk); the same
    holds of its golden episodes. A step in which no turn is supervised leaves weights, optimizer and warm-up
    alone, and is counted. A signal that stops the run finds the checkpoint of the last whole step written (in
    one process; several do not stop at the same step, and `checkpoint_every` serves them).
    """
    optimizer = StudentOptimizer(models.student.model, trainer, processes.mesh, seed=seed)
    change = WeightChange(models.student.model)
    learners = [part for part in (rules.intervention, ask) if isinstance(part, Stateful)]
    progress = _resume(checkpoints, models, optimizer, change, processes, learners)
    if progress.steps and after_step is not None:
        after_step(progress.steps, _is_last(progress, trainer))  # a signal may have come in the middle of it

    for step in range(progress.steps + 1, trainer.steps + 1):
        if _spent(progress, trainer):
            break
        # play
        jobs = jobs_of_step(tasks, step, trainer.tasks_per_step, episodes_per_task, seed)
        last_turns = rules.curriculum.last_turns(step, turn_budget)
        mine = [replace(job, last_turns=last_turns) for job in processes.share(jobs)]
        with phase("rollout"):
            episodes = play(mine, rules.curriculum.turn_limit(step, turn_budget)) if mine else []
        played = [Played(episode) for episode in episodes]
        batch = [p for p in played if p.episode.status.is_ok and p.episode.turns]

        # decide
        ask_both = partial(
            score_batch,
            models,
            rules.objective.confidence,
            micro_batch=speed.micro_batch,
            with_student=True,
        )
        scored = ask_both(batch) if rules.intervention.needs_scores else None
        with phase("judge"):
            decided = decide(batch, rules.intervention, ask, turn_streams(seed, step))
        if scored is not None and len(decided) < len(batch):
            scored = ask_both(decided)
        batch = decided
        if max_not_ok is not None:
            _refuse_not_ok(processes, episodes, max_not_ok, step)

        # score, weigh, differentiate
        optimizer.clear()
        loss = accumulate_gradient(
            models,
            rules.objective,
            batch,
            micro_batch=speed.micro_batch,
            processes=processes,
            log_skipped=trainer.log_skipped,
            scored=scored,
            stream=episode_streams(seed, step),
        )

        imitated: BatchLoss | None = None
        shown: list[Episode] = []
        if gold is not None:
            first = [job for job in mine if job.rollout_index % episodes_per_task == 0]
            with phase("rollout"):
                shown = gold.play(first) if first else []
            if max_not_ok is not None:
                _refuse_not_ok(processes, shown, max_not_ok, step, "the demonstrations of ")
            imitated = imitate(gold, shown, models, speed.micro_batch, processes)

        with defer_signals():
            # step
            learning_rate, grad_norm = optimizer.learning_rate, None
            moves = loss.z is not None or (imitated is not None and imitated.z is not None)
            if moves:
                with phase("student"):
                    if processes.count > 1 and optimizer.mesh is None:
                        all_reduce_gradients(optimizer.parameters, processes.all_reduce_tensor)
                    grad_norm = optimizer.step()

            # report
            everyone = processes.gather(played)
            gold_cost = imitated.teacher_tokens if imitated else 0
            gold_broken = sum(not episode.status.is_ok for episode in shown)
            numbers = processes.all_reduce_sum((loss.teacher_tokens, gold_cost, gold_broken))
            teacher_tokens, gold_cost, gold_broken = map(int, numbers)
            row = step_values(everyone, loss) | {
                "teacher_tokens": teacher_tokens,
                "stepped": moves,
                "gold_tokens": int(imitated.sums.tokens) if imitated else 0,
                "gold_loss": imitated.loss if imitated else 0.0,
                "gold_not_ok": gold_broken,
            }
            row["teacher_play_tokens"] += gold_cost
            learnt = change.of_masters(optimizer.masters) if optimizer.rounds else None
            cost = sum(row[name] for name in TEACHER.values())
            progress = Summary(step, progress.stepped + moves, progress.teacher_tokens + cost)
            if processes.is_main:
                row |= {
                    "grad_norm": grad_norm,
                    "learning_rate": learning_rate,
                    "relative_weight_change": (played_change := change.value()),
                    "relative_master_change": played_change if learnt is None else learnt,
                }
                seconds = take_seconds()
                row |= {f"seconds_{name}": seconds[name] for name in TIMED}
                on_step(StepReport(step, row, everyone))
            if processes.count == 1:
                states, memories = [checkpoint.random_state()], [[part.state_dict() for part in learners]]
                on_stop(
                    partial(_write, checkpoints, progress, models, optimizer, change, states, memories)
                )

        last = _is_last(progress, trainer)
        if after_step is not None:
            after_step(step, last)
        if last or (speed.checkpoint_every and step % speed.checkpoint_every == 0):
            _save(checkpoints, progress, models, optimizer, change, processes, learners)
    on_stop(None)
    return progress


def _refuse_not_ok(
    processes: Processes, mine: Sequence[Episode], most: float, step: int, part: str = ""
) -> None:
    """`refuse_not_ok` over the episodes of all processes, in every one of them; `part`: which of the step's,
    `the demonstrations of `."""
    bad = sum(not episode.status.is_ok for episode in mine)
    bad_in_all, in_all = processes.all_reduce_sum((bad, len(mine)))
    if too_many(int(bad_in_all), int(in_all), most):
        episodes = processes.gather(mine)
        refuse_not_ok(episodes, most, f"{part}training step {step}", step - 1)


def _spent(progress: Summary, trainer: TrainerSettings) -> bool:
    return trainer.teacher_budget is not None and progress.teacher_tokens >= trainer.teacher_budget


def _is_last(progress: Summary, trainer: TrainerSettings) -> bool:
    return progress.steps >= trainer.steps or _spent(progress, trainer)


def imitate(
    gold: Gold,
    episodes: Sequence[Episode],
    models: Pair,
    micro_batch: int,
    processes: Processes,
) -> BatchLoss:
    """Add λ ∇ mean −log p over the tokens of the won ones of the golden `episodes` to the student's gradient.

    Every process has to call it, with or without episodes of its own. The result's `teacher_tokens` are those
    that this process's golden episodes have cost.
    """
    batch = [
        Played(episode, [Decision(Label.ALWAYS, gold.weight) for _ in episode.turns])
        for episode in episodes
        if episode.won and episode.turns
    ]
    # −log p looks at no teacher: the student stands in for it, and the ledger stays empty.
    alone = Pair(models.student, models.student, models.vocabulary, None)
    loss = accumulate_gradient(
        alone,
        IMITATION,
        batch,
        micro_batch=micro_batch,
        processes=processes,
    )
    return replace(loss, teacher_tokens=sum(episode.teacher_tokens for episode in episodes))


def jobs_of_step(
    tasks: Sequence[Task], step: int, tasks_per_step: int, episodes_per_task: int, seed: int
) -> list[Job]:
    """The jobs of 1-based `step`: the next tasks of an endless row of epochs, each shuffled by (seed, epoch).

    The rollout index goes on counting over epochs, so that a task which comes again is sampled afresh.
    """
    if not tasks:
        raise ValueError("There is no task to train on; check env.games and the split's manifest.")
    jobs = []
    for position in range((step - 1) * tasks_per_step, step * tasks_per_step):
        epoch, index = divmod(position, len(tasks))
        task = tasks[_epoch_order(len(tasks), seed, epoch)[index]]
        jobs += [Job(task, epoch * episodes_per_task + r) for r in range(episodes_per_task)]
    return jobs


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    return random.Random(f"{seed}/tasks/{epoch}").sample(range(count), count)


def turn_streams(seed: int, step: int) -> Stream:
    """A random stream per turn that depends on nothing but (seed, step, task, rollout, turn)."""

    def stream(context: TurnContext) -> random.Random:
        episode, turn = context.episode, context.turn
        key = (seed, "intervention", step, episode.task.id, episode.rollout_index, turn.index)
        return random.Random("/".join(map(str, key)))

    return stream


def episode_streams(seed: int, step: int) -> EpisodeStream:
    """A random stream per episode that depends on nothing but (seed, step, task, rollout)."""

    def stream(episode: Episode) -> random.Random:
        key = (seed, "confidence", step, episode.task.id, episode.rollout_index)
        return random.Random("/".join(map(str, key)))

    return stream


def decide(batch: Sequence[Played], rule: Intervention, ask: Ask, stream: Stream) -> list[Played]:
    """Fill in the decisions of every turn of `batch`, all in one query; with scores where there are any.

    Returns those that were decided. An episode with a turn that the judge could not be run on ends
    `policy_error` and is decided about in no turn; the rule decides about the others as if it were not there.
    """
    contexts = [
        TurnContext(played.episode, turn, played.scores[t] if played.scores else None)
        for played in batch
        for t, turn in enumerate(played.episode.turns)
    ]
    try:
        decisions = iter(rule.decide(contexts, ask, stream))
    except JudgeFailure as error:
        for episode, reason in error.episodes:
            episode.status, episode.error = Status.POLICY_ERROR, reason
        for played in batch:
            if not played.episode.status.is_ok:
                played.scores = []
        return decide([p for p in batch if p.episode.status.is_ok], rule, ask, stream)
    for played in batch:
        played.decisions = [next(decisions) for _ in played.episode.turns]
    return list(batch)


def step_values(played: Sequence[Played], loss: BatchLoss) -> dict[str, Any]:
    """Columns of the steps table that follow from the episodes and the loss."""
    ok = [p for p in played if p.episode.status.is_ok]
    decisions = [decision for p in ok for decision in p.decisions]
    asked = [d for d in decisions if d.reply or d.label is Label.FALLBACK]
    scored = [
        (turn.n_tokens, turn_score.divergence)
        for p in ok
        for turn, turn_score in zip(p.episode.turns, p.scores, strict=True)
        if turn_score.divergence is not None
    ]
    scored_tokens = sum(tokens for tokens, _ in scored)
    tokens = loss.sums.tokens
    return {
        "loss": loss.loss,
        "stepped": loss.z is not None,
        "z": loss.z,
        "mean_weight": loss.sums.weighted / tokens if tokens else None,
        "mean_divergence": sum(n * value for n, value in scored) / scored_tokens if scored_tokens else None,
        "episodes": len(ok),
        "episodes_not_ok": len(played) - len(ok),
        "episodes_context_full": sum(p.episode.status is Status.CONTEXT_FULL for p in ok),
        "success_rate": sum(p.episode.won for p in ok) / len(ok) if ok else None,
        "turns": sum(len(p.episode.turns) for p in ok),
        "student_tokens": int(tokens),
        "active_tokens": int(loss.sums.active),
        "judge_queries": sum(not d.cached for d in asked),
        "judge_cached": sum(d.cached for d in asked),
        "judge_tokens": sum(d.judge_tokens for d in asked),
        "teacher_play_tokens": sum(p.episode.teacher_tokens for p in played),
        **label_shares([p.decisions for p in ok]),
    }


def _save(
    folder: Path,
    progress: Summary,
    models: Pair,
    optimizer: StudentOptimizer,
    change: WeightChange,
    processes: Processes,
    learners: Sequence[Stateful],
) -> None:
    states = processes.gather([checkpoint.random_state()])
    memories = processes.gather([[learner.state_dict() for learner in learners]])
    _write(folder, progress, models, optimizer, change, states, memories, writes=processes.is_main)
    processes.barrier()


def _write(
    folder: Path,
    progress: Summary,
    models: Pair,
    optimizer: StudentOptimizer,
    change: WeightChange,
    random_states: list[Any],
    memories: list[Any],
    writes: bool = True,
) -> None:
    """`random_states` and `memories` (of each learner) have an entry per process. Every process calls this,
    and one of them `writes`."""
    state = optimizer.state_dict(keep=writes) | {
        "stepped": progress.stepped,
        "teacher_tokens": progress.teacher_tokens,
        "start_norm": change.start_norm,
        "random": random_states,
        "memories": memories,
    }
    if writes:
        checkpoint.save(folder, progress.steps, models.student, state)


def _resume(
    folder: Path,
    models: Pair,
    optimizer: StudentOptimizer,
    change: WeightChange,
    processes: Processes,
    learners: Sequence[Stateful],
) -> Summary:
    """What is done already. Raises ValueError where the run began with other weights."""
    path = checkpoint.latest(folder)
    if path is None:
        return Summary(0, 0)
    state = checkpoint.load(path, models.student)
    if abs(state["start_norm"] - change.start_norm) > 1e-6 * change.start_norm:
        raise ValueError(
            f"{path} belongs to a run that began with other student weights; "
            "resume with the student it was started with, or use launch.on_existing=rerun."
        )
    optimizer.load_state_dict(state)
    if processes.rank < len(state["random"]):
        checkpoint.set_random_state(state["random"][processes.rank])
        for learner, memory in zip(learners, state["memories"][processes.rank], strict=True):
            learner.load_state_dict(memory)
    return Summary(int(state["step"]), int(state["stepped"]), int(state["teacher_tokens"]))

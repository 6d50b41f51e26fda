"""A small complete training run on the letters environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sage.config.schema import SpeedSettings, TrainerSettings
from sage.envs.pool import EnvPool
from sage.episode import Decision, Episode, Label, Task
from sage.objective.confidence.base import Top1
from sage.objective.divergence.base import ReverseKL
from sage.objective.intervention.base import Intervention, Judge, JudgeFn, JudgeQuery, Stream, TurnContext
from sage.objective.normalization import AllToken
from sage.policy.decoding.answer import Sampling
from sage.policy.rollout import PlaySettings, play
from sage.policy.seat import Job
from sage.records.recorder import StepReport
from sage.teacher.judge import TeacherJudge
from sage.training.batch import Models, match_models
from sage.training.curriculum import Curriculum, Full
from sage.training.gradient import Objective
from sage.training.jobs import Schedule
from sage.training.loop import distill
from sage.training.parts import Demonstrations, Rules, Training
from sage.training.processes import Processes
from sage.training.sharding import full_tensor
from sage.training.state import Progress
from tests.letters import STYLE, Letters, tasks
from tests.tiny_models import tiny_lm

TRAINER = TrainerSettings(
    steps=4,
    tasks_per_step=4,
    learning_rate=1e-3,
    warmup_steps=2,
    weight_decay=0.1,
    rounding="dither",
    clip_norm=1.0,
    teacher_budget=None,
    log_skipped=True,
    log_tokens=2,
    checkpoint="full",
)
SPEED = SpeedSettings(
    fit_memory=True,
    engine="auto",
    vllm={},
    draft_tokens=0,
    slots=4,
    workers=0,
    step_timeout_s=10,
    judge_batch=64,
    judge_ahead=False,
    micro_batch=2,
    gradient_checkpointing="auto",
    packing="auto",
    loss_chunk=0,
    compile_loss="auto",
    threads=1,
    checkpoint_every=0,
    checkpoint_background=True,
    matrix_rate=1e10,
    memory_rate=1e10,
)


class DiceJudge(Judge):
    """The judge's rule; a babble of the (untaught) teacher becomes a label drawn from the turn's stream."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        def drawn(context: TurnContext, decision: Decision) -> Decision:
            if decision.label is not Label.FALLBACK:
                return decision
            label = stream(context).choice([Label.SKIP, Label.WEAK, Label.STRONG])
            return dataclasses.replace(decision, label=label, weight=self.weight(label), propensity=1 / 3)

        return [drawn(c, d) for c, d in zip(turns, super().decide(turns, ask, stream), strict=True)]


JUDGE = DiceJudge(name="judge", weak_weight=0.5, sees_feedback=True, max_new_tokens=4)
OBJECTIVE = Objective(
    Top1(name="top1", per="turn", teacher_temperature=1.0),
    AllToken(name="all_token", scope="batch", epsilon=1e-8, z_max=None),
    ReverseKL(name="reverse_kl"),
)


def fresh_models() -> Models:
    return match_models(tiny_lm(1), tiny_lm(2, hidden=48, rows=272))


def train(
    folder: Path,
    *,
    models: Models | None = None,
    trainer: TrainerSettings = TRAINER,
    speed: SpeedSettings = SPEED,
    intervention: Intervention = JUDGE,
    curriculum: Curriculum | None = None,
    chosen: Sequence[Task] | None = None,
    ask: JudgeFn | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    after_step: Callable[[int, bool], None] | None = None,
    demonstrations: Demonstrations | None = None,
    max_not_ok: float | None = None,
) -> tuple[Progress, list[StepReport], Models]:
    """Rollouts with the real student, pool, judge and teacher; everything small."""
    both = models or fresh_models()
    query = JudgeQuery(sees_feedback=True, max_new_tokens=4)
    reports: list[StepReport] = []
    pool = EnvPool(Letters, workers=0, step_timeout_s=10)

    def play_jobs(jobs: Sequence[Job], turn_limit: int) -> list[Episode]:
        settings = PlaySettings(
            sampling=Sampling(temperature=1.0, top_p=1.0, max_new_tokens=5),
            style=STYLE,
            seed=0,
            stream="train",
            turn_budget=turn_limit,
            max_context=400,
            slots=speed.slots,
        )
        return play(both.student, pool, jobs, settings)

    def report(step: StepReport) -> None:
        reports.append(step)
        if on_step is not None:
            on_step(step)

    training = Training(
        models=both,
        rules=Rules(intervention, curriculum or Full(name="full"), OBJECTIVE),
        trainer=trainer,
        speed=speed,
        schedule=Schedule(chosen or tasks(6), trainer.tasks_per_step, 1, turn_budget=4, seed=0),
        play=play_jobs,
        judge=ask or TeacherJudge(both.teacher, STYLE, query),
        processes=Processes.start(both.student.device),
        demonstrations=demonstrations,
        max_not_ok=max_not_ok,
    )
    done = distill(training, folder / "checkpoints", report, after_step)
    return done, reports, both


def plain(reports: Sequence[StepReport]) -> list[dict[str, Any]]:
    """Rows without wall times and what follows from them."""
    timed = ("seconds_", "speed_")
    return [{k: v for k, v in r.row.items() if not k.startswith(timed)} for r in reports]


def complete(folder: Path, steps: int, **changes: Any) -> dict[str, Any] | None:
    """What happened up to step `steps`, with every step's (clipped) gradient, in a run with `changes` of its
    trainer settings; None but in the main process."""
    gradients: list[torch.Tensor] = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients.append(torch.cat([full_tensor(p.grad).flatten() for p in parameters if p.grad is not None]))

    hook = register_optimizer_step_pre_hook(keep)
    trainer = TRAINER.model_copy(update={"steps": steps} | changes)
    summary, reports, both = train(folder, trainer=trainer, chosen=tasks(6, broken=(4,)))
    hook.remove()
    if not reports:
        return None
    return {
        "rows": plain(reports),
        "ids": [[p.episode.token_ids for p in r.batch] for r in reports],
        "gradients": gradients,
        "weights": torch.cat([p.detach().flatten() for p in both.student.model.parameters()]),
        "stepped": summary.stepped,
        "processes": Processes.start(both.student.device).count,
    }

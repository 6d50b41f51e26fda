"""What the rule decides about the turns of a step, with the judge's word and the scores of both models where
it wants them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sage.episode import Episode, Status, Turn
from sage.errors import ConfigError
from sage.objective.intervention.base import (
    Intervention,
    JudgeFailure,
    JudgeFn,
    Stream,
    TurnContext,
    no_judge,
)
from sage.policy.rollout import OnTurns
from sage.records.clock import phase
from sage.teacher.elsewhere import Teacher
from sage.teacher.judge import TeacherJudge
from sage.training.batch import Scored, TrainingEpisode, score_batch
from sage.training.not_ok import refuse_not_ok_anywhere
from sage.training.parts import Training

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle
    from sage.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Judged:
    """The episodes of this process that are learnt from, each turn with its decision; `scored` where the rule
    has needed what the models say about them."""

    batch: list[TrainingEpisode]
    scored: Scored | None


def judge_batch(training: Training, step: int, batch: Sequence[TrainingEpisode]) -> Judged:
    """Decide about every turn of the episodes that are ok. Collective.

    Raises TooManyNotOk, see `Training.max_not_ok`; the judge may have failed on some.
    """
    ok = [one for one in batch if one.episode.status.is_ok and one.episode.turns]
    rule = training.rules.intervention
    scored = _scored(training, ok) if rule.needs_scores else None
    with phase("judge"):
        decided = decide(ok, rule, training.judge, turn_streams(training.schedule.seed, step))
    if scored is not None and len(decided) < len(ok):
        scored = _scored(training, decided)
    if training.max_not_ok is not None:
        mine = [one.episode for one in batch]
        what = f"training step {step}"
        refuse_not_ok_anywhere(training.processes, mine, training.max_not_ok, what, step - 1)
    return Judged(decided, scored)


def _scored(training: Training, batch: Sequence[TrainingEpisode]) -> Scored:
    confidence, size = training.rules.objective.confidence, training.speed.micro_batch
    return score_batch(training.models, confidence, batch, micro_batch=size, with_student=True)


def decide(
    batch: Sequence[TrainingEpisode], rule: Intervention, ask: JudgeFn, stream: Stream
) -> list[TrainingEpisode]:
    """Fill in the decisions of every turn of `batch`, all in one query; with scores where there are any.

    Returns those that were decided. An episode with a turn that the judge could not be run on ends
    `policy_error` and is decided about in no turn; the rule decides about the others as if it were not there.
    """
    contexts = [
        TurnContext(one.episode, turn, one.scores[t] if one.scores else None)
        for one in batch
        for t, turn in enumerate(one.episode.turns)
    ]
    try:
        decisions = iter(rule.decide(contexts, ask, stream))
    except JudgeFailure as error:
        for episode, reason in error.episodes:
            episode.status, episode.error = Status.POLICY_ERROR, reason
        for one in batch:
            if not one.episode.status.is_ok:
                one.scores = []
        return decide([one for one in batch if one.episode.status.is_ok], rule, ask, stream)
    for one in batch:
        one.decisions = [next(decisions) for _ in one.episode.turns]
    return list(batch)


def turn_streams(seed: int, step: int) -> Stream:
    """A random stream per turn that depends on nothing but (seed, step, task, rollout, turn)."""

    def stream(context: TurnContext) -> random.Random:
        episode, turn = context.episode, context.turn
        key = (seed, "intervention", step, episode.task.id, episode.rollout_index, turn.index)
        return random.Random("/".join(map(str, key)))

    return stream


def judge_of(config: RunConfig, style: PromptStyle, teacher: Teacher, stack: ExitStack) -> JudgeFn:
    """Whom the rule asks; closed with `stack`. Raises ConfigError where settings contradict each other."""
    query, kept = config.intervention.query, config.launch.judge_cache
    if query is None:
        return no_judge
    if kept and config.trainer.teacher_budget is not None:
        raise ConfigError(
            "trainer.teacher_budget counts every query once, and launch.judge_cache would answer some for"
            " nothing; set launch.judge_cache=null."
        )
    speed = config.speed
    judge = TeacherJudge(
        teacher,
        style,
        query,
        batch=speed.judge_batch,
        cache_file=Path(kept).expanduser() if kept else None,
        engine=speed.engine,
        draft_tokens=speed.draft_tokens,
    )
    stack.callback(judge.close)
    return judge


def prefetch_judge(config: RunConfig, judge: JudgeFn) -> OnTurns | None:
    """Begins to ask about turns as they are played; None where all are asked about afterwards."""
    if not config.speed.judge_ahead or not isinstance(judge, TeacherJudge):
        return None
    rule = config.intervention

    def prefetch(played: Sequence[tuple[Episode, Turn]]) -> None:
        judge.prefetch([TurnContext(episode, turn) for episode, turn in played if rule.always_judged(turn)])

    return prefetch

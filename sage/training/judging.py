"""What the rule decides about the turns of a step, with the judge's word and the scores of both models where
it wants them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

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
from sage.policy.dialogue import Dialogue
from sage.policy.models.failures import memory_for, smaller_passes
from sage.policy.rollout import OnTurns
from sage.records.activity import did, expect
from sage.records.clock import phase
from sage.teacher.elsewhere import RemoteTeacher, Teacher
from sage.teacher.judge import TeacherJudge
from sage.teacher.trajectory import TrajectoryJudge
from sage.training.batch import Scored, TrainingEpisode, groups_of, score_batch
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
    training.mark([one.episode for one in ok], step)
    states = _read(training, ok)
    scored = _scored(training, ok, states) if rule.needs_scores else None
    with phase("judge"):
        decided = decide(ok, rule, training.judge, turn_streams(training.schedule.seed, step))
    if scored is not None and len(decided) < len(ok):
        scored = _scored(training, decided, states)
    if scored is None and states is not None:
        objective = training.rules.objective
        scored = score_batch(
            training.models,
            objective.confidence,
            decided,
            micro_batch=training.speed.micro_batch,
            only_supervised=not objective.reads_all_turns(training.trainer.log_skipped),
            states=states,
        )
    if training.max_not_ok is not None:
        mine = [one.episode for one in batch]
        what = f"training step {step}"
        refuse_not_ok_anywhere(training.processes, mine, training.max_not_ok, what, step - 1)
    return Judged(decided, scored)


def _read(training: Training, batch: Sequence[TrainingEpisode]) -> dict[int, Tensor] | None:
    """The teacher's states at all student tokens, by `id` of the episode, of a judge that asks on the way;
    None of another, which leaves the reading to the scoring pass."""
    judge, rule, size = training.judge, training.rules.intervention, training.speed.micro_batch
    if not isinstance(judge, TrajectoryJudge):
        return None
    states: dict[int, Tensor] = {}
    with phase("judge"):
        expect(None, "queries")
    with phase("teacher"):
        expect(len(batch), "episodes")
    for group in groups_of(batch, size, training.models):
        episodes = [one.episode for one in group]
        asked = [TurnContext(e, turn) for e in episodes for turn in e.turns if rule.always_judged(turn)]
        with phase("teacher"), memory_for("the teacher's scoring pass", smaller_passes(size)):
            states |= zip(map(id, episodes), judge.read(episodes, asked), strict=True)
            did(len(group), tokens=sum(len(episode.token_ids) for episode in episodes))
    return states


def _scored(training: Training, batch: Sequence[TrainingEpisode], states: dict[int, Tensor] | None) -> Scored:
    confidence, size = training.rules.objective.confidence, training.speed.micro_batch
    return score_batch(training.models, confidence, batch, micro_batch=size, with_student=True, states=states)


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


def judge_of(
    config: RunConfig,
    style: PromptStyle,
    teacher: Teacher,
    stack: ExitStack,
    reading: Dialogue | None = None,
) -> JudgeFn:
    """Whom the rule asks; closed with `stack`. reading: `Models.dialogue`. Raises ConfigError where settings
    contradict each other."""
    query, kept = config.intervention.query, config.launch.judge_cache
    if query is None:
        return no_judge
    if kept and config.trainer.teacher_budget is not None:
        raise ConfigError(
            "trainer.teacher_budget counts every query once, and launch.judge_cache would answer some for"
            " nothing; set launch.judge_cache=null."
        )
    judge = make_judge(config, style, teacher, reading, Path(kept).expanduser() if kept else None)
    stack.callback(judge.close)
    return judge


def make_judge(
    config: RunConfig,
    style: PromptStyle,
    teacher: Teacher,
    reading: Dialogue | None,
    cache_file: Path | None = None,
) -> TeacherJudge:
    """The judge of a config whose rule has a query, with what `judge.context` shows it."""
    query, speed = config.intervention.query, config.speed
    how: dict[str, Any] = {
        "batch": speed.judge_batch,
        "cache_file": cache_file,
        "engine": speed.engine,
        "draft_tokens": speed.draft_tokens,
    }
    if config.judge.context == "state":
        return TeacherJudge(teacher, style, query, **how)
    assert not isinstance(teacher, RemoteTeacher)  # the config has refused that
    return TrajectoryJudge(teacher, style, query, reading, **how)


def prefetch_judge(config: RunConfig, judge: JudgeFn) -> OnTurns | None:
    """Begins to ask about turns as they are played; None where all are asked about afterwards."""
    if not config.speed.judge_ahead or not isinstance(judge, TeacherJudge):
        return None
    rule = config.intervention

    def prefetch(played: Sequence[tuple[Episode, Turn]]) -> None:
        judge.prefetch([TurnContext(episode, turn) for episode, turn in played if rule.always_judged(turn)])

    return prefetch

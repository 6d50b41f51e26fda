"""Who plays the training episodes: the student, the teacher, the expert, or the teacher first and then the
student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sage.envs.pool import EnvPool
from sage.episode import Episode
from sage.errors import ConfigError
from sage.policy.dialogue import Dialogue
from sage.policy.openings import ExpertAnswers, FirstTurns, RandomTurns
from sage.policy.rollout import OnTurns, Opening, PlaySettings, play
from sage.policy.seat import Job
from sage.teacher.elsewhere import RemoteTeacher
from sage.teacher.vocabulary import added_words
from sage.training.batch import Models
from sage.training.parts import Demonstrations, Play

if TYPE_CHECKING:
    from sage.config.schema import RunConfig

GUIDE = "guide"
"""Random stream of teacher play that is not itself trained on, apart from the student's."""


def training_play(
    config: RunConfig,
    models: Models,
    pool: EnvPool,
    settings: PlaySettings,
    on_turns: OnTurns | None = None,
) -> Play:
    """`on_turns` is told of what the student plays. Raises ConfigError where the student could not read what
    the teacher would play."""
    if config.rollout.player == "expert":
        return _by_expert(models, pool, settings)
    if config.rollout.player == "teacher":
        return _by_teacher(models, pool, settings, "rollout.player=teacher")
    guide: Play | None = None
    if config.curriculum.last_turns(1, config.env.turn_budget) is not None:
        guided = replace(settings, stream=GUIDE)
        guide = _by_teacher(models, pool, guided, f"curriculum={config.curriculum.name}")
    if config.rollout.perturb:
        own = Dialogue(models.student.tokenizer, models.student.thinking)
        opening = RandomTurns(config.rollout.perturb, settings.style, own, config.seed)
        return _by_student(models, pool, settings, None, on_turns, opening)
    return _by_student(models, pool, settings, guide, on_turns)


def demonstrations(
    config: RunConfig, models: Models, pool: EnvPool, settings: PlaySettings
) -> Demonstrations | None:
    """None where `rollout.demonstration` is off. Raises ConfigError as `training_play` does."""
    wanted = config.rollout.demonstration
    if wanted.player == "none" or wanted.weight == 0:
        return None
    apart = replace(settings, stream=GUIDE)
    if wanted.player == "expert":
        by = _by_expert(models, pool, apart)
    else:
        by = _by_teacher(models, pool, apart, "rollout.demonstration.player=teacher")
    return Demonstrations(lambda jobs: by(jobs, settings.turn_budget), wanted.weight)


def _by_student(
    models: Models,
    pool: EnvPool,
    settings: PlaySettings,
    guide: Play | None,
    on_turns: OnTurns | None,
    opening: Opening | None = None,
) -> Play:
    """`opening` gives the first turns where there is no `guide`."""

    def play_jobs(jobs: Sequence[Job], turn_limit: int) -> list[Episode]:
        how = replace(settings, turn_budget=turn_limit)
        if guide is None or all(job.last_turns is None for job in jobs):
            return play(models.student, pool, jobs, how, opening=opening, on_turns=on_turns)
        shown = guide(jobs, turn_limit)
        episodes = play(models.student, pool, jobs, how, opening=FirstTurns(shown), on_turns=on_turns)
        for episode, before in zip(episodes, shown, strict=True):
            episode.teacher_tokens = before.teacher_tokens
        return episodes

    return play_jobs


def _by_teacher(models: Models, pool: EnvPool, settings: PlaySettings, why: str) -> Play:
    if models.dialogue is not None:
        raise ConfigError(
            f"{why} needs one chat template for both models, and theirs differ; "
            "give both the same by student.chat_template and teacher.chat_template."
        )
    teacher = models.teacher
    if isinstance(teacher, RemoteTeacher):
        raise ConfigError(
            f"{why} has the teacher play, and one elsewhere scores and judges only; load it here."
        )
    if words := added_words(models.student.tokenizer, models.teacher.tokenizer):
        raise ConfigError(
            f"{why} needs one tokenizer for both models, and the teacher could say {words[0]!r}, which the "
            "student cannot read; take a teacher with the student's tokenizer."
        )

    def play_jobs(jobs: Sequence[Job], turn_limit: int) -> list[Episode]:
        how = replace(settings, turn_budget=turn_limit, decoder="local")
        episodes = play(teacher, pool, jobs, how)
        for episode in episodes:
            # Its cache is kept over the turns: every token of the conversation goes through once.
            episode.teacher_tokens = len(episode.token_ids)
        return episodes

    return play_jobs


def _by_expert(models: Models, pool: EnvPool, settings: PlaySettings) -> Play:
    answers = ExpertAnswers(pool, settings.style, Dialogue(models.student.tokenizer, models.student.thinking))

    def play_jobs(jobs: Sequence[Job], turn_limit: int) -> list[Episode]:
        how = replace(settings, turn_budget=turn_limit, decoder="local")
        return play(models.student, pool, jobs, how, opening=answers)

    return play_jobs

"""Where the teacher of a run is: in this process, or elsewhere; opened once, before anything is played."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sage.policy.models.load import load_model, load_tokenizer
from sage.teacher.elsewhere import RemoteTeacher, Teacher
from sage.teacher.spoil import SpoiltTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.schema import RunConfig


def likeliest_needed(config: RunConfig) -> int:
    """How many of the teacher's likeliest tokens a run has to know; at least the one that is recorded."""
    return max(1, config.divergence.likeliest or 0, config.confidence.likeliest or 0)


def load_teacher(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Teacher:
    """The teacher of `config`. tokenizer: its own, where it has been loaded before. folder: the run's
    attempt, where it is written which server a run began with, and which a resumed run has to find again.

    Raises ModelError or ConfigError, in one sentence, where it cannot be used, TeacherLost where it cannot be
    reached.
    """
    settings = config.teacher
    if settings.here:
        teacher = load_model(settings, role="teacher", tokenizer=tokenizer)
        return SpoiltTeacher.of(teacher, settings, config.seed)
    tokenizer = tokenizer or load_tokenizer(settings, role="teacher")
    remote = _elsewhere(config, tokenizer, say)
    if folder is not None:
        try:
            remote.same_as_before(folder)
        except BaseException:
            remote.close()
            raise
    return remote


def _elsewhere(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None]
) -> RemoteTeacher:
    settings = config.teacher
    if settings.server is None:
        from sage.teacher.ray.teacher import open_teacher as open_on_ray

        return open_on_ray(settings, tokenizer, config.speed)
    from sage.teacher.server.teacher import open_teacher

    return open_teacher(
        settings.server,
        tokenizer,
        path=settings.path,
        thinking=settings.thinking,
        k=likeliest_needed(config),
        say=say,
    )

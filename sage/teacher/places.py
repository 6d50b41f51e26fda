"""Where the teacher of a run is: in this process, or elsewhere; opened once, before anything is played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sage.policy.models.load import load_model, load_tokenizer
from sage.teacher.elsewhere import RemoteTeacher, Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.schema import RunConfig

SERVER_RECORD = "teacher_server.json"
"""In a run's attempt: what the server said of itself when the run began."""
RAY_RECORD = "teacher_ray.json"
"""The same of a teacher on Ray."""


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
        return load_model(settings, role="teacher", tokenizer=tokenizer)
    tokenizer = tokenizer or load_tokenizer(settings, role="teacher")
    if settings.server is None:
        return _on_ray(config, tokenizer, folder)
    from sage.teacher.server.teacher import open_teacher, same_as_before

    teacher = open_teacher(
        settings.server,
        tokenizer,
        path=settings.path,
        thinking=settings.thinking,
        k=likeliest_needed(config),
        say=say,
    )
    if folder is not None:
        with _closed_if_refused(teacher):
            same_as_before(teacher, folder / SERVER_RECORD)
    return teacher


def _on_ray(config: RunConfig, tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> RemoteTeacher:
    from sage.teacher.ray.teacher import open_teacher, same_as_before

    teacher = open_teacher(config.teacher, tokenizer, config.speed)
    if folder is not None:
        with _closed_if_refused(teacher):
            same_as_before(teacher, folder / RAY_RECORD)
    return teacher


@contextmanager
def _closed_if_refused(teacher: RemoteTeacher) -> Iterator[None]:
    try:
        yield
    except BaseException:
        teacher.close()
        raise

"""What can be refused or warned of before any weights are read: a run begins with it, and so does the page.

Raises ConfigError or ModelError, each one sentence; all models are looked at before the first is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage.check.page import Line, fine, warning
from sage.config.own_model import is_tiny
from sage.config.schema import ModelSettings, RunConfig
from sage.errors import ConfigError, ModelError
from sage.policy.models.folder import device_of, look
from sage.teacher.replies import ReplyFile

PAPER_RATE = 1e-6
"""The paper's learning rate (method.md section 8)."""
RATE_FOR_TINY = 1e-4
"""From here on a rate is one for models of a million parameters."""


def trains(config: RunConfig) -> bool:
    return config.task == "train" and config.trainer.steps > 0


def models_of(config: RunConfig) -> dict[str, ModelSettings]:
    """The models that the run would load, by role."""
    models: dict[str, ModelSettings] = {"student": config.student}
    if trains(config):
        models["teacher"] = config.teacher
        anchor = config.divergence.anchor
        if anchor is not None and anchor.reference != "student":
            models["reference"] = config.teacher.model_copy(update={"path": anchor.reference})
    return models


def before_weights(config: RunConfig) -> Iterator[Line]:
    """Lines about settings and folders. Raises ConfigError or ModelError where something is refused."""
    models = models_of(config)
    _check_dtype(config)
    _check_told(config)
    for role, settings in models.items():
        try:
            device_of(settings.device)
        except ModelError as error:
            raise ModelError(f"{role}.{error}") from error
    for role, settings in models.items():
        try:
            look(settings)
        except ModelError as error:
            raise ModelError(f"{role.capitalize()}: {error}") from error
    if config.launch.judge_cache and config.intervention.query is not None and trains(config):
        ReplyFile(Path(config.launch.judge_cache).expanduser()).close()
    found = ", ".join(f"{role} {settings.path}" for role, settings in models.items())
    yield fine(f"{found}: config, files and device are there.")
    yield from warnings(config)


def warnings(config: RunConfig) -> Iterator[Line]:
    """What may be meant and probably is not; needs nothing but the config."""
    if not trains(config) or is_tiny(config.student.path):
        return
    rate = config.trainer.learning_rate
    if rate >= RATE_FOR_TINY and config.student.lora is None:
        yield warning(
            f"trainer.learning_rate={rate:g} is {rate / PAPER_RATE:,.0f} times the paper's "
            f"{PAPER_RATE:g}: it is made"
            " for models of a million parameters; student=hub brings settings for a larger one."
        )
    if config.student.dtype == "bfloat16" and device_of(config.student.device).type == "cpu":
        yield warning(
            "The student plays in bfloat16 on a CPU, as on a GPU, so that a run's numbers do not depend "
            "on the"
            " machine; student.dtype=float32 is exact, and often faster here."
        )


def _check_told(config: RunConfig) -> None:
    if config.intervention.needs_spoilt and config.teacher.spoil is None and trains(config):
        raise ConfigError(
            "intervention=told is told where the teacher is spoilt, and this one is spoilt nowhere; set "
            "teacher.spoil to a dose from 0 to 1."
        )


def _check_dtype(config: RunConfig) -> None:
    if config.student.dtype == "float16" and trains(config):
        raise ConfigError(
            "student.dtype=float16 cannot be trained: without loss scaling its gradient is wrong by a "
            "third at 10,000"
            " tokens a step and zero at a million; use bfloat16 (float32 masters are kept) or float32."
        )

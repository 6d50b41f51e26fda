"""The memory of a run, planned for a card that need not be here, from the shapes of the models alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.check.before import trains
from sage.check.page import Line, fine, refused, warning
from sage.errors import ModelError, reason_of, short_reason

if TYPE_CHECKING:
    from sage.config.schema import ModelSettings, RunConfig
    from sage.policy.models.shape import Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def memory(config: RunConfig, gib: float, processes: int = 1) -> Iterator[Line]:
    """What a step would take on a device of so many GiB, and the slots and micro-batch that fit. processes:
    with one device each, over which FSDP cuts the optimizer's state. Reads the models' configs and
    tokenizers, no weights. Raises ModelError where a config cannot be read."""
    from sage.check.checkpoint import checkpoint_line, size_of
    from sage.check.preflight import look_ahead
    from sage.training.memory import fitted, need_of, over_processes

    student = _with_adapters(config, _shape(config.student))
    teacher = _shape(config.teacher) if trains(config) else None
    if teacher is not None and not config.teacher.here:
        teacher = _of_elsewhere(config, teacher)
        yield fine(f"The teacher is elsewhere; here it takes {teacher.weights / 2**30:.1f} GiB for its head.")
    if processes > 1:
        yield fine(f"Of {processes} processes with FSDP, each with a device of its own; one of them:")
    try:
        context = look_ahead(config, config.env.tasks).context
    except Exception as error:
        context = []
        yield warning(
            f"The games' tokens were not counted ({short_reason(error)}): every episode is planned with "
            f"rollout.max_context={config.rollout.max_context:,}."
        )
    need = over_processes(need_of(config, context), processes, processes > 1)
    plan = fitted(student, teacher, need, int(gib * 2**30))
    for line in plan.lines():
        yield fine(f"{line[:1].upper()}{line[1:]}.")
    if teacher is not None:
        frozen = student.parameters - student.learning
        yield checkpoint_line(config, size_of(config, student.learning, frozen))
    asked = (config.speed.slots, config.speed.micro_batch)
    less = "" if (plan.slots, plan.micro_batch) == asked else f" (asked for: {asked[0]} and {asked[1]})"
    if not plan.fits:
        yield refused(
            f"{plan.summary()}{less}; take a smaller student or teacher, lower rollout.max_context, or take a"
            " larger device."
        )
    else:
        yield fine(f"{plan.summary()}{less}.")


def _shape(settings: ModelSettings) -> Shape:
    from sage.policy.models.shape import shape_of

    return shape_of(_config(settings), BYTES[settings.dtype])


def _with_adapters(config: RunConfig, student: Shape) -> Shape:
    """The student with the adapters that it is to learn, which learn alone."""
    if config.student.lora is None or not trains(config):
        return student
    from sage.policy.models.lora import adapter_parameters

    of_model = _config(config.student)
    trained = adapter_parameters(of_model, config.student.path, config.student.lora)
    return replace(student, parameters=student.parameters + trained, trained=trained)


def _of_elsewhere(config: RunConfig, teacher: Shape) -> Shape:
    """What a run keeps of a teacher that is on Ray, or on a server."""
    from sage.policy.models.shape import head_shape
    from sage.teacher.places import likeliest_needed

    if config.teacher.ray is not None:
        return head_shape(teacher.vocabulary, teacher.width, teacher.size)
    return head_shape(teacher.vocabulary, 2 * likeliest_needed(config) + 2, 4, kept=False)


def _config(settings: ModelSettings) -> Any:
    """A folder that holds a config.json alone will do."""
    from transformers import AutoConfig

    from sage.policy.models.folder import look, resolve_path

    path = resolve_path(settings.path)
    if not Path(path).expanduser().is_dir():
        source = look(settings)
        if source.config is not None:
            return source.config
        path = str(source.path)
    gguf = {"gguf_file": settings.gguf_file} if settings.gguf_file else {}
    try:
        return AutoConfig.from_pretrained(Path(path).expanduser(), **gguf)
    except Exception as error:
        raise ModelError(f"The config of {settings.path!r} cannot be read: {reason_of(error)}.") from error

"""What the loaded models are, and whether their numbers and the machine's memory are enough for a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sage.check.page import Line, fine, warning
from sage.check.room import free_bytes, gib, training_bytes
from sage.teacher.elsewhere import RemoteTeacher, Teacher

if TYPE_CHECKING:
    from sage.check.pair import Subject
    from sage.policy.models.load import LanguageModel


def numbers(subject: Subject) -> Iterator[Line]:
    """One line a model, one about memory, one about the rate."""
    models: dict[str, Teacher] = {"student": subject.student}
    if subject.models is not None:
        models["teacher"] = subject.models.teacher
    for role, lm in models.items():
        if isinstance(lm, RemoteTeacher):
            yield fine(f"The {role} is elsewhere: {lm.name}, reach {lm.reach or 'unknown'}.")
            continue
        yield fine(f"The {role}'s weights are all from its files and finite: {described(lm)}.")
        if lm.left_out:
            yield fine(lm.left_out)
    if subject.models is None:
        return
    yield fine("Hidden states times the output layer are the logits of both.")
    needed, free = training_bytes(subject.student), free_bytes(subject.student.device)
    text = f"A step takes {gib(needed)} beside the student's weights, {gib(free)} are free"
    if needed > free:
        yield warning(f"{text}: it would run out of memory; use a smaller student or a larger machine.")
    else:
        yield fine(f"{text}.")
    trainer = subject.config.trainer
    warm = f"{trainer.warmup_steps} steps of warm-up"
    yield fine(f"Rate {trainer.learning_rate:g} after {warm}, {trainer.steps} steps.")


def described(lm: LanguageModel) -> str:
    """Kind, size, dtype, device and reach of a model."""
    config = lm.model.config.get_text_config()
    count = sum(p.numel() for p in lm.model.parameters())
    reach = getattr(config, "max_position_embeddings", None)
    size = f"{count / 1e9:.2f} billion" if count > 5e7 else f"{count / 1e6:.2f} million"
    dtype = str(lm.model.dtype).removeprefix("torch.")
    return (
        f"{type(lm.model).__name__}, {size} parameters, {dtype} on {lm.device}"
        f"{f', reach {reach:,} tokens' if reach else ''}"
    )

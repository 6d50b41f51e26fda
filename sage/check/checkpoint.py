"""What a run's checkpoints take on the disk, and the copy that they are written from in main memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage.check.page import Line, fine
from sage.check.room import gib

if TYPE_CHECKING:
    from sage.config.schema import RunConfig
    from sage.policy.models.load import LanguageModel

MASTER = 4
"""Bytes of a weight that learns: float32, whatever it plays in."""
AT_ONCE = 3
"""Two are kept, and the next is written beside them."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of one checkpoint: the student's folder (and its adapter), and what a training goes on with."""

    student: int
    optimizer: int

    @property
    def whole(self) -> int:
        return self.student + self.optimizer


def size_of(config: RunConfig, learning: int, frozen: int = 0, frozen_bytes: int = 0) -> Size:
    """learning, frozen: numbers of weights; with adapters (which learn) the frozen ones are merged with them
    and lie there in float32."""
    if config.student.lora is not None:
        frozen_bytes = MASTER * frozen
    moments = 2 * MASTER * learning if config.trainer.checkpoint == "full" else 0
    return Size(MASTER * learning + frozen_bytes, moments)


def size_of_loaded(config: RunConfig, lm: LanguageModel) -> Size:
    """Of a student as it is trained."""
    learning = sum(p.numel() for p in lm.model.parameters() if p.requires_grad)
    others = [p for p in lm.model.parameters() if not p.requires_grad]
    return size_of(
        config, learning, sum(p.numel() for p in others), sum(p.numel() * p.element_size() for p in others)
    )


def checkpoint_line(config: RunConfig, size: Size) -> Line:
    """For the page."""
    parts = f"student {gib(size.student)}"
    if size.optimizer:
        parts += f", optimizer {gib(size.optimizer)}"
    else:
        parts += "; weights alone: a run that is killed starts over"
    how = f"it is written from a copy of {gib(size.whole)} in main memory while the training goes on"
    if not config.speed.checkpoint_background:
        how = "the training waits while it is written"
    return fine(
        f"A checkpoint takes {gib(size.whole)} ({parts}); two are kept and one is written beside them, "
        f"{gib(AT_ONCE * size.whole)} on the disk; {how}."
    )

"""How both models are read in the passes of a step: what makes them fast or small, and never a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sage.errors import ModelError
from sage.objective.chunked import BY_SIZE, Chunking
from sage.objective.compiled import Compiled
from sage.objective.elementwise import at_chunk
from sage.policy.models.hidden_states import training_error
from sage.policy.models.packing import why_not
from sage.policy.models.recompute import layers_of
from sage.training.memory import loss_chunk

if TYPE_CHECKING:
    from sage.config.schema import SpeedSettings
    from sage.policy.models.load import LanguageModel


@dataclass(frozen=True, slots=True)
class Passes:
    """chunking: how the loss and the confidence go through the vocabulary. tokens: most of a packed pass; 0
    for those of `speed.micro_batch` longest episodes of the batch."""

    chunking: Chunking = BY_SIZE
    tokens: int = 0


PLAIN = Passes()
"""As the models are read where nothing is said: on a CPU."""


def passes_of(
    speed: SpeedSettings,
    student: LanguageModel,
    vocabulary: int,
    say: Callable[[str], None],
    room: int | None = None,
) -> Passes:
    """What `speed` asks for on the student's device, where memory is planned with `room` tokens an episode.
    `say` is told what the run pays for, and what did not work."""
    cuda = student.device.type == "cuda"
    compiled = cuda if speed.compile_loss == "auto" else bool(speed.compile_loss)
    most = speed.loss_chunk
    if cuda and not most:  # no plan was made
        held = sum(p.numel() * p.element_size() for p in student.model.parameters())
        free = torch.cuda.mem_get_info(student.device)[0]
        most = loss_chunk(vocabulary, free + held, compiled=compiled)
    chunking = Chunking(most, Compiled(say, rows=most) if compiled else at_chunk)
    return Passes(chunking, speed.micro_batch * (room or 0))


def prepare(
    speed: SpeedSettings, student: LanguageModel, others: Sequence[LanguageModel], say: Callable[[str], None]
) -> None:
    """Set how the models are read: packed, and the student's layers computed again. `others` pack where that
    is right for them. Raises ModelError where `speed` asks for what is not right for the student."""
    student.recomputes = speed.gradient_checkpointing is True
    if student.recomputes and not layers_of(student):
        raise ModelError(
            f"{type(student.model).__name__} has no layers that transformers can compute again; set"
            " speed.gradient_checkpointing=false, and lower rollout.max_context where memory is short."
        )
    wanted = student.device.type == "cuda" if speed.packing == "auto" else speed.packing
    reason = _packs(student) if wanted else ""
    if reason and speed.packing is True:
        raise ModelError(
            f"speed.packing=true is not right for the student ({reason}); set speed.packing=false, which"
            " pads."
        )
    if wanted and reason:
        say(f"training passes are padded: the student cannot be packed ({reason})")
    for other in others if student.packs else ():
        if reason := _packs(other):
            say(f"{other.name} reads padded episodes: it cannot be packed ({reason})")


def _packs(lm: LanguageModel) -> str:
    """Have the model pack where that gives its plain forward; why not else."""
    if reason := why_not(lm):
        return reason
    lm.packs = True
    report = training_error(lm)
    lm.packs = report.equal
    return "" if report.equal else report.finding()

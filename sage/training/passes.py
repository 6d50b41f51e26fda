"""How both models are read in the passes of a step: what makes them fast or small, and never a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sage.objective.chunked import BY_SIZE, Chunking
from sage.objective.compiled import Compiled
from sage.objective.elementwise import at_chunk
from sage.training.memory import loss_chunk

if TYPE_CHECKING:
    from sage.config.schema import SpeedSettings
    from sage.policy.models.load import LanguageModel


@dataclass(frozen=True, slots=True)
class Passes:
    """chunking: how the loss and the confidence go through the vocabulary."""

    chunking: Chunking = BY_SIZE


PLAIN = Passes()
"""As the models are read where nothing is said: on a CPU."""


def passes_of(
    speed: SpeedSettings, student: LanguageModel, vocabulary: int, say: Callable[[str], None]
) -> Passes:
    """What `speed` asks for on the student's device. `say` is told what the run pays for, and what did not
    work."""
    cuda = student.device.type == "cuda"
    compiled = cuda if speed.compile_loss == "auto" else bool(speed.compile_loss)
    most = speed.loss_chunk
    if cuda and not most:  # no plan was made
        held = sum(p.numel() * p.element_size() for p in student.model.parameters())
        free = torch.cuda.mem_get_info(student.device)[0]
        most = loss_chunk(vocabulary, free + held, compiled=compiled)
    return Passes(Chunking(most, Compiled(say, rows=most) if compiled else at_chunk))

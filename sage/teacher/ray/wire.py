"""What travels between a run and an actor: tensors as bytes, and failures as sentences.

numpy has no bfloat16, and an exception of ours need not survive pickling; plain tuples do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

Packed: TypeAlias = "tuple[str, tuple[int, ...], np.ndarray]"
"""(dtype, shape, bytes) of a tensor."""


def pack(tensor: Tensor, dtype: str | None = None) -> Packed:
    """The tensor in `dtype` (None: its own), from whatever device. Raises OverflowError where a finite number
    would not be finite in it."""
    sent = tensor.detach() if dtype is None else tensor.detach().to(getattr(torch, dtype))
    if dtype is not None and not bool(sent.isfinite().all()) and bool(tensor.isfinite().all()):
        raise OverflowError(f"a hidden state of {float(tensor.abs().max()):.3g} has no place in {dtype}")
    sent = sent.cpu().contiguous()
    return str(sent.dtype).removeprefix("torch."), tuple(sent.shape), sent.view(torch.uint8).numpy()


def unpack(packed: Packed) -> Tensor:
    """The tensor on the CPU, in memory of its own."""
    dtype, shape, content = packed
    flat = torch.from_numpy(np.array(content, copy=True).reshape(-1))
    return flat.view(getattr(torch, dtype)).reshape(shape)


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an actor has no answer. memory: it did not suffice. refused: the config or the model is wrong, and
    would be again. model: the model could not be run."""

    kind: Literal["memory", "refused", "model"]
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and the digest of the weights that gave it: a restarted actor has loaded its files anew."""

    digest: str
    content: object

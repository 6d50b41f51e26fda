"""What a forward of a causal LM costs, counted from its weights: operations of its matrix products, and bytes
that decoding has to read.

Two operations for each number of a matrix and token, and the two products of causal attention (the usual
count of model operations: what is computed twice, padded or masked is not counted twice). A mixture of
experts counts as if all of them were used. Where a config does not say its heads (a running state), attention
counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from sage.policy.models.shape import Shape, shape_of

if TYPE_CHECKING:
    from torch import nn

    from sage.policy.models.load import LanguageModel


def backbone_operations(lm: LanguageModel, lengths: Iterable[int]) -> float:
    """Of the layers over sequences of these lengths; with the backward pass where gradients are on."""
    lengths = list(lengths)
    ends = _ends(lm)
    layers = [p for p in lm.model.parameters() if p.ndim >= 2 and id(p) not in ends]
    matrices = sum(p.numel() for p in layers)
    shape = _shape(lm)
    attention = 0 if shape is None else 2 * shape.layers * shape.heads * shape.head_width
    forward = 2.0 * matrices * sum(lengths) + float(attention) * sum(n * n for n in lengths)
    if not torch.is_grad_enabled():
        return forward
    # Once more for what comes in, and for the weights that learn.
    trained = sum(p.numel() for p in layers if p.requires_grad)
    return 2 * forward + forward * (trained / matrices if matrices else 0.0)


def head_operations(rows: int, width: int, tokens: int, passes: int = 1) -> float:
    """Of a projection of so many tokens on so many rows; `passes` 3 with its backward pass."""
    return 2.0 * rows * width * tokens * passes


def decoding_bytes(lm: LanguageModel) -> tuple[int, int]:
    """That a forward for new tokens reads: all weights once, and the keys and values of one cached token."""
    shape = _shape(lm)
    table = lm.model.get_input_embeddings().weight
    tied = table is lm.model.get_output_embeddings().weight
    weights = sum(p.numel() * p.element_size() for p in lm.model.parameters() if tied or p is not table)
    return weights, 0 if shape is None else shape.cached


def _ends(lm: LanguageModel) -> set[int]:
    """Ids of the weights of both ends of the vocabulary."""
    ends: tuple[nn.Module | None, ...] = (lm.model.get_input_embeddings(), lm.model.get_output_embeddings())
    return {id(p) for part in ends if part is not None for p in part.parameters()}


def _shape(lm: LanguageModel) -> Shape | None:
    try:
        return shape_of(lm.model.config, lm.model.dtype.itemsize, parameters=0)
    except Exception:  # configs refuse in ways of their own (Gemma 4: "may vary across layers")
        return None

"""What is made of two models' logits at a chunk of tokens, between the products with their heads.

`at_chunk` is one function of tensors alone (log-softmax of both, divergence, entropy, weighted slope), so
that it can be compiled as a whole (`sage.objective.compiled`): on a GPU its some fifteen passes over [C, V]
cost more than the products.

Shape suffixes: C tokens of a chunk, V shared vocabulary.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from sage.objective.divergence.base import Divergence

Made: TypeAlias = "tuple[Tensor, Tensor, Tensor, Tensor | None]"
"""Divergence_C, student's logprob_C of the sampled token, its entropy_C; weighted slope_CV."""


class Elementwise(Protocol):
    """`at_chunk`, or what computes the same."""

    def __call__(
        self,
        divergence: Divergence,
        student_CV: Tensor,
        teacher_CV: Tensor,
        target_C: Tensor,
        weight_C: Tensor | None,
        read: bool,
    ) -> Made: ...


def at_chunk(
    divergence: Divergence,
    student_CV: Tensor,
    teacher_CV: Tensor,
    target_C: Tensor,
    weight_C: Tensor | None,
    read: bool = False,
) -> Made:
    """The divergence of two models' logits with what is recorded of them, and the slope of Σ weight · D with
    respect to the student's logits, in their dtype; no slope where `weight_C` is None.

    `read`: `teacher_CV` is what `Divergence.reads` has given already, in place of logits. Both may be
    overwritten.
    """
    dtype = student_CV.dtype
    student_CV = widened(student_CV).log_softmax(-1)
    logprob_C, entropy_C = chosen_logprob(student_CV, target_C), entropy(student_CV)
    if not read:
        teacher_CV = divergence.reads(widened(teacher_CV).log_softmax(-1), target_C)
    teacher_CV = teacher_CV.to(student_CV).expand_as(student_CV)
    if weight_C is None:
        return divergence.value(student_CV, teacher_CV, target_C), logprob_C, entropy_C, None
    value_C, slope_CV = divergence.value_and_slope(student_CV, teacher_CV, target_C)
    return value_C, logprob_C, entropy_C, slope_CV.mul_(weight_C[:, None].to(slope_CV)).to(dtype)


def widened(logits_CV: Tensor) -> Tensor:
    """16 bits as float32, all else as it is."""
    return logits_CV.float() if logits_CV.dtype in (torch.bfloat16, torch.float16) else logits_CV


def chosen_logprob(logprob_CV: Tensor, target_C: Tensor) -> Tensor:
    """log-probability of the sampled token, [C]; NaN for an id outside the shared vocabulary."""
    vocabulary = logprob_CV.shape[-1]
    chosen_C = logprob_CV.gather(-1, target_C.clamp(max=vocabulary - 1)[:, None]).squeeze(-1)
    return chosen_C.masked_fill(target_C >= vocabulary, math.nan)


def entropy(logprob_CV: Tensor) -> Tensor:
    """Entropy in nats, [C]."""
    return -(logprob_CV.exp() * logprob_CV).sum(-1)

"""Divergence between two models from hidden states, a chunk of the vocabulary projection at a time.

Invariant: no [tokens × vocabulary] matrix is ever held for more tokens than one chunk, neither the
student's, nor the teacher's, nor the gradient. The gradient of a chunk is finished while its logits are
there (the way of Liger's fused losses), so backward only scales what forward has left.

Student and teacher may be on two devices: hidden states and head of a model stay together, and of the teacher
only what the divergence reads (`Divergence.reads`) goes to the student's, chunk by chunk.

Shape suffixes: T student tokens, D and E the hidden widths of student and teacher, V shared vocabulary
(ids 0..V-1; rows of an embedding beyond it are padding and take no part), C tokens of one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sage.objective.divergence.base import Divergence

CHUNK_ELEMENTS = 1 << 23
"""Default size of one [C, V] matrix: 32 MiB in float32. About five of them live at a time."""


class Projection(Protocol):
    """What makes distributions of a model's states."""

    @property
    def rows(self) -> int:
        """Ids that it has logits for."""
        ...

    @property
    def whole(self) -> bool:
        """Whether each logit is the model's own, so that statistics of the whole distribution can be made."""
        ...

    def logits(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """Logits [C, V], at least in float32; always a fresh tensor."""
        ...

    def known(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """How many of the likeliest tokens the model itself has named at each, [C]."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """A vocabulary projection: weight_VD [rows >= V, D] and bias_V, None where there is none."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    whole: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return int(self.weight_VD.shape[0])

    def logits(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """Logits [C, V], at least in float32; always a fresh tensor."""
        bias_V = None if self.bias_V is None else self.bias_V[:vocabulary]
        logits_CV = torch.nn.functional.linear(hidden_CD, self.weight_VD[:vocabulary], bias_V)
        return logits_CV.float() if logits_CV.dtype in (torch.bfloat16, torch.float16) else logits_CV

    def known(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """All of them, [C]."""
        return hidden_CD.new_full((len(hidden_CD),), vocabulary, dtype=torch.long)


@dataclass(frozen=True, slots=True)
class Projected:
    """A model at T tokens: hidden_TD and its head, on the model's device."""

    hidden_TD: Tensor
    head: Projection

    @property
    def rows(self) -> int:
        """Of the head: the ids that it has logits for."""
        return self.head.rows

    def logits(self, index_C: Tensor, vocabulary: int) -> Tensor:
        """Logits [C, V] at tokens `index_C` (on any device)."""
        return self.head.logits(self.hidden_TD[index_C.to(self.hidden_TD.device)], vocabulary)


@dataclass(frozen=True, slots=True)
class ChunkedResult:
    """`weighted_sum` = Σ_T weight · D carries the gradient; the rest is detached, NaN where not computed.

    student_logprob_T: log-probability of the sampled token; student_entropy_T: in nats.
    """

    weighted_sum: Tensor
    divergence_T: Tensor
    student_logprob_T: Tensor
    student_entropy_T: Tensor


def chunk_size(vocabulary: int, tokens: int) -> int:
    """Tokens per chunk so that one [C, V] matrix has about CHUNK_ELEMENTS elements; equal chunks."""
    chunks = max(1, math.ceil(tokens * vocabulary / CHUNK_ELEMENTS))
    return max(1, math.ceil(tokens / chunks))


def chunks_of(index_T: Tensor, vocabulary: int) -> Iterator[Tensor]:
    """Split indices into chunks of `chunk_size` tokens."""
    if len(index_T):
        yield from index_T.split(chunk_size(vocabulary, len(index_T)))


def chosen_logprob(logprob_CV: Tensor, target_C: Tensor) -> Tensor:
    """log-probability of the sampled token, [C]; NaN for an id outside the shared vocabulary."""
    vocabulary = logprob_CV.shape[-1]
    chosen_C = logprob_CV.gather(-1, target_C.clamp(max=vocabulary - 1)[:, None]).squeeze(-1)
    return chosen_C.masked_fill(target_C >= vocabulary, math.nan)


def entropy(logprob_CV: Tensor) -> Tensor:
    """Entropy in nats, [C]."""
    return -(logprob_CV.exp() * logprob_CV).sum(-1)


def chunked_divergence(
    divergence: Divergence,
    student_hidden_TD: Tensor,
    student_head: Head,
    teacher: Projected,
    target_T: Tensor,
    weight_T: Tensor,
    *,
    vocabulary: int,
    log_unweighted: bool = True,
) -> ChunkedResult:
    """Weighted sum of per-token divergences, with its gradient for the student's hidden states and head.

    teacher: what the student is compared with, on any device; all else is on the student's.
    target_T: sampled ids, for the log-probability. weight_T: Z s_t / N or anything else, detached. Tokens of
    weight 0 never enter the gradient; with `log_unweighted` their divergence is still computed (two
    projections without their gradients), else they never reach a projection and are NaN in the result.
    Raises ValueError where a head has fewer rows than the vocabulary.
    """
    for whose, rows in (("student", student_head.weight_VD.shape[0]), ("teacher", teacher.rows)):
        if rows < vocabulary:
            raise ValueError(
                f"The {whose}'s output layer has {rows} rows for a vocabulary of "
                f"{vocabulary}; resize it or take the model that belongs to the tokenizer."
            )
    outputs = _ChunkedDivergence.apply(
        student_hidden_TD,
        student_head.weight_VD,
        student_head.bias_V,
        (divergence, teacher, target_T, weight_T.detach()),
        (vocabulary, log_unweighted, torch.is_grad_enabled()),
    )
    return ChunkedResult(*outputs)


class _ChunkedDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        other: tuple[Divergence, Projected, Tensor, Tensor],
        options: tuple[int, bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        divergence, teacher, target_T, token_weight_T = other
        vocabulary, log_unweighted, grad_enabled = options
        head = Head(weight_VD, bias_V)
        # needs_input_grad does not know about no_grad.
        needs_hidden, needs_weight, needs_bias = (grad_enabled and need for need in ctx.needs_input_grad[:3])
        grad_hidden_TD = torch.zeros_like(hidden_TD) if needs_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD) if needs_weight else None
        grad_bias_V = torch.zeros_like(bias_V) if needs_bias and bias_V is not None else None

        stats_dtype = torch.promote_types(hidden_TD.dtype, torch.float32)
        divergence_T, logprob_T, entropy_T = hidden_TD.new_full(
            (3, len(hidden_TD)), math.nan, dtype=stats_dtype
        )

        def logprobs(index_C: Tensor) -> tuple[Tensor, Tensor]:
            student_CV = head.logits(hidden_TD[index_C], vocabulary).log_softmax(-1)
            logprob_T[index_C] = chosen_logprob(student_CV, target_T[index_C])
            entropy_T[index_C] = entropy(student_CV)
            teacher_CV = teacher.logits(index_C, vocabulary).log_softmax(-1)
            read = divergence.reads(teacher_CV, target_T[index_C].to(teacher_CV.device))
            return student_CV, read.to(student_CV).expand_as(student_CV)

        any_gradient = needs_hidden or needs_weight or needs_bias
        if any_gradient:
            for index_C in chunks_of(token_weight_T.nonzero().squeeze(-1), vocabulary):
                both = logprobs(index_C)
                divergence_T[index_C], slope_CV = divergence.value_and_slope(*both, target_T[index_C])
                slope_CV = slope_CV.mul_(token_weight_T[index_C, None].to(slope_CV)).to(hidden_TD.dtype)
                if grad_hidden_TD is not None:
                    grad_hidden_TD[index_C] = slope_CV @ weight_VD[:vocabulary]
                if grad_weight_VD is not None:
                    grad_weight_VD[:vocabulary].addmm_(slope_CV.T, hidden_TD[index_C])
                if grad_bias_V is not None:
                    grad_bias_V[:vocabulary] += slope_CV.sum(0)
        rest_T = token_weight_T == 0 if any_gradient else torch.ones_like(token_weight_T, dtype=torch.bool)
        if not log_unweighted:
            rest_T = rest_T & (token_weight_T != 0)
        for index_C in chunks_of(rest_T.nonzero().squeeze(-1), vocabulary):
            divergence_T[index_C] = divergence.value(*logprobs(index_C), target_T[index_C])

        weighted_T = torch.where(
            token_weight_T != 0, divergence_T * token_weight_T, torch.zeros_like(divergence_T)
        )
        ctx.save_for_backward(grad_hidden_TD, grad_weight_VD, grad_bias_V)
        ctx.mark_non_differentiable(divergence_T, logprob_T, entropy_T)
        return weighted_T.sum(), divergence_T, logprob_T, entropy_T

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # The usual factor is exactly one: no second [V, D] matrix for it.
        factor = float(grad_sum)

        def scaled(gradient: Tensor | None) -> Tensor | None:
            return gradient if gradient is None or factor == 1.0 else gradient * factor

        return (*map(scaled, ctx.saved_tensors), None, None)

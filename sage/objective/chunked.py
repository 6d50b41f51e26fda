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
from sage.objective.elementwise import Elementwise, at_chunk, widened

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
        return widened(self.product(hidden_CD, vocabulary))

    def product(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """Logits [C, V] in the head's own dtype: half the bytes in 16 bits, for who widens them himself."""
        bias_V = None if self.bias_V is None else self.bias_V[:vocabulary]
        return torch.nn.functional.linear(hidden_CD, self.weight_VD[:vocabulary], bias_V)

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

    def product(self, index_C: Tensor, vocabulary: int) -> Tensor:
        """Logits [C, V] at tokens `index_C` (on any device), a plain head's in its own dtype. All that a kind
        of `Projected` has to give."""
        hidden_CD = self.hidden_TD[index_C.to(self.hidden_TD.device)]
        make = self.head.product if isinstance(self.head, Head) else self.head.logits
        return make(hidden_CD, vocabulary)

    def logits(self, index_C: Tensor, vocabulary: int) -> Tensor:
        """The same, at least in float32."""
        return widened(self.product(index_C, vocabulary))


@dataclass(frozen=True, slots=True)
class ChunkedResult:
    """`weighted_sum` = Σ_T weight · D carries the gradient; the rest is detached, NaN where not computed.

    student_logprob_T: log-probability of the sampled token; student_entropy_T: in nats.
    """

    weighted_sum: Tensor
    divergence_T: Tensor
    student_logprob_T: Tensor
    student_entropy_T: Tensor


def chunk_size(vocabulary: int, tokens: int, most: int = 0) -> int:
    """Tokens per chunk, in equal chunks: of at most `most` tokens, or (0) so that one [C, V] matrix has about
    CHUNK_ELEMENTS elements."""
    chunks = max(1, math.ceil(tokens / most if most else tokens * vocabulary / CHUNK_ELEMENTS))
    return max(1, math.ceil(tokens / chunks))


def chunks_of(index_T: Tensor, vocabulary: int, most: int = 0) -> Iterator[Tensor]:
    """Split indices into chunks of `chunk_size` tokens."""
    if len(index_T):
        yield from index_T.split(chunk_size(vocabulary, len(index_T), most))


@dataclass(frozen=True, slots=True)
class Chunking:
    """How the vocabulary is gone through; the same sums, whatever it is.

    most: tokens of a chunk (0: about CHUNK_ELEMENTS logits). elementwise: what is made of a chunk's logits.
    log_unweighted: whether the divergence of tokens of weight 0 is computed too, for the records.
    """

    most: int = 0
    elementwise: Elementwise = at_chunk
    log_unweighted: bool = True


BY_SIZE = Chunking()
"""For small vocabularies and CPUs."""


def chunked_divergence(
    divergence: Divergence,
    student_hidden_TD: Tensor,
    student_head: Head,
    teacher: Projected,
    target_T: Tensor,
    weight_T: Tensor,
    *,
    vocabulary: int,
    chunking: Chunking = BY_SIZE,
) -> ChunkedResult:
    """Weighted sum of per-token divergences, with its gradient for the student's hidden states and head.

    teacher: what the student is compared with, on any device; all else is on the student's.
    target_T: sampled ids, for the log-probability. weight_T: Z s_t / N or anything else, detached. Tokens of
    weight 0 never enter the gradient; with `Chunking.log_unweighted` their divergence is still computed (two
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
        (vocabulary, chunking, torch.is_grad_enabled()),
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
        options: tuple[int, Chunking, bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        divergence, teacher, target_T, token_weight_T = other
        vocabulary, chunking, grad_enabled = options
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

        def record(index_C: Tensor, weight_C: Tensor | None) -> Tensor | None:
            """Fill in the statistics of a chunk; its slope times `weight_C`, where there is one."""
            target_C = target_T[index_C]
            student_CV = head.product(hidden_TD[index_C], vocabulary)
            teacher_CV, read = _brought(teacher.product(index_C, vocabulary), divergence, target_C)
            divergence_T[index_C], logprob_T[index_C], entropy_T[index_C], slope_CV = chunking.elementwise(
                divergence, student_CV, teacher_CV, target_C, weight_C, read
            )
            return slope_CV

        any_gradient = needs_hidden or needs_weight or needs_bias
        if any_gradient:
            weighted = chunks_of(token_weight_T.nonzero().squeeze(-1), vocabulary, chunking.most)
            for index_C in weighted:
                slope_CV = record(index_C, token_weight_T[index_C])
                assert slope_CV is not None
                if grad_hidden_TD is not None:
                    grad_hidden_TD[index_C] = slope_CV @ weight_VD[:vocabulary]
                if grad_weight_VD is not None:
                    grad_weight_VD[:vocabulary].addmm_(slope_CV.T, hidden_TD[index_C])
                if grad_bias_V is not None:
                    grad_bias_V[:vocabulary] += slope_CV.sum(0)
        rest_T = _rest(token_weight_T, any_gradient, chunking.log_unweighted)
        for index_C in chunks_of(rest_T.nonzero().squeeze(-1), vocabulary, chunking.most):
            record(index_C, None)

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


def _brought(teacher_CV: Tensor, divergence: Divergence, target_C: Tensor) -> tuple[Tensor, bool]:
    """The teacher's logits; from another device than the student's only what the divergence reads of them
    (and true)."""
    if teacher_CV.device == target_C.device:
        return teacher_CV, False
    logprob_CV = widened(teacher_CV).log_softmax(-1)
    return divergence.reads(logprob_CV, target_C.to(logprob_CV.device)).to(target_C.device), True


def _rest(token_weight_T: Tensor, any_gradient: bool, log_unweighted: bool) -> Tensor:
    """Tokens that are computed without a gradient."""
    rest_T = token_weight_T == 0 if any_gradient else torch.ones_like(token_weight_T, dtype=torch.bool)
    return rest_T if log_unweighted else rest_T & (token_weight_T != 0)

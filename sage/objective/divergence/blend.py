"""A blend of two models at the same tokens: log of q^a π_ref^b, up to a constant per token.

Shape suffixes: C tokens of one chunk, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sage.objective.chunked import Projected
from sage.objective.divergence.base import Anchor


@dataclass(frozen=True, slots=True)
class Blended(Projected):
    """Stands where a teacher stands; the hidden states and head of the base class are the teacher's own.

    The two may be on two devices; the blend is on the reference's, which is the student's where π_ref is the
    student as it began.
    """

    reference: Projected
    anchor: Anchor

    @property
    def rows(self) -> int:
        return min(p.head.rows for p in (self, self.reference))

    def product(self, index_C: Tensor, vocabulary: int) -> Tensor:
        own = Projected(self.hidden_TD, self.head)
        logits_CV, other_CV = own.logits(index_C, vocabulary), self.reference.logits(index_C, vocabulary)
        dtype = torch.promote_types(logits_CV.dtype, other_CV.dtype)
        powers = self.anchor.teacher_power, self.anchor.reference_power
        logits_CV = logits_CV.to(other_CV.device).to(dtype)
        return logits_CV.mul(powers[0]).add_(other_CV.to(dtype), alpha=powers[1])


def blended(teacher: Projected, reference: Projected, anchor: Anchor) -> Blended:
    """∝ q^a π_ref^b at the tokens of both."""
    return Blended(teacher.hidden_TD, teacher.head, reference, anchor)

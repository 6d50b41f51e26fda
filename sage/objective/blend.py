"""The vocabulary projection of a blend of two models: log of q^a π_ref^b, up to a constant per token.

Shape suffixes: C tokens of one chunk, E and R the hidden widths of teacher and reference, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sage.objective.chunked import Head
from sage.objective.divergence import Anchor


@dataclass(frozen=True, slots=True)
class BlendedHead(Head):
    """Stands where a teacher's head stands; `weight_VD` and `bias_V` are the teacher's own.

    Its hidden states are those of both models side by side, [C, E + R].
    """

    reference: Head | None = None
    anchor: Anchor | None = None

    def logits(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        assert self.reference is not None
        assert self.anchor is not None
        widths = [self.weight_VD.shape[1], self.reference.weight_VD.shape[1]]
        own_CE, other_CR = hidden_CD.split(widths, dim=-1)
        own = Head(self.weight_VD, self.bias_V)
        logits_CV = own.logits(own_CE.to(self.weight_VD.dtype), vocabulary)
        other_CV = self.reference.logits(other_CR.to(self.reference.weight_VD.dtype), vocabulary)
        dtype = torch.promote_types(logits_CV.dtype, other_CV.dtype)
        powers = self.anchor.teacher_power, self.anchor.reference_power
        return logits_CV.to(dtype).mul(powers[0]).add_(other_CV.to(dtype), alpha=powers[1])


def blended(teacher: Head, reference: Head, anchor: Anchor) -> BlendedHead:
    """The head of ∝ q^a π_ref^b for hidden states side by side, the teacher's first."""
    return BlendedHead(teacher.weight_VD, teacher.bias_V, reference, anchor)

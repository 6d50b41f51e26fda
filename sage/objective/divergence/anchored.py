"""Losses with a reference model: away from it (reward extrapolation), or held near it (stabilisation).

Both are reverse KL to one distribution ∝ q^a π_ref^b, so that the chunked objective needs no third
distribution: `Blended` hands it the blend where it asks for the teacher. p is the student, q the teacher.
Shape suffixes: C tokens of one chunk, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sage.config.registry import divergences
from sage.objective.divergence.base import Anchor, Divergence, ReverseKL

if TYPE_CHECKING:
    from torch import Tensor

_REVERSE = ReverseKL(name="reverse_kl")


@divergences.register("extrapolated")
class Extrapolated(Divergence):
    """KL(p ‖ q_λ) with q_λ ∝ q^λ π_ref^{1−λ}: reward extrapolation, λ > 1.

    G-OPD (arXiv 2602.12125) maximises E[λ log(q / π_ref)] − KL(p ‖ π_ref), whose target this is; λ > 1 is its
    ExOPD, λ = 1 is reverse KL whatever π_ref is. Its π_ref is the student as training begins, or the model
    that the teacher was trained from ("reward correction").
    """

    strength: float = Field(gt=0, le=1_000)
    """λ."""
    reference: str
    """π_ref: `student` (as the run began), a model's path as in `teacher.path`, or `uniform`, which sharpens
    the teacher and costs no model."""

    @property
    def anchor(self) -> Anchor | None:
        if self.reference == "uniform":
            return None
        return Anchor(self.reference, self.strength, 1 - self.strength)

    def _target(self, teacher_logprob_CV: Tensor) -> Tensor:
        if self.reference != "uniform":
            return teacher_logprob_CV
        return (self.strength * teacher_logprob_CV).log_softmax(-1)

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        return _REVERSE.value(student_logprob_CV, self._target(teacher_logprob_CV), target_C)

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        return _REVERSE.value_and_slope(student_logprob_CV, self._target(teacher_logprob_CV), target_C)


@divergences.register("anchored")
class Anchored(Divergence):
    """(1 + β) KL(p ‖ m) with m ∝ q^{1/(1+β)} π_ref^{β/(1+β)}: the gradient of KL(p ‖ q) + β KL(p ‖ π_ref).

    The reference constraint of StableOPD (arXiv 2604.08527, in public reading notes). The two differ by
    −(1 + β) log Σ_v q^{1/(1+β)} π_ref^{β/(1+β)}, which does not depend on the student: it is left out, so 0
    still means that nothing is left to learn. The other half of StableOPD is `rollout.demonstration`.
    """

    strength: float = Field(gt=0, le=1_000)
    """β. The paper's value could not be found; ours."""
    reference: str
    """π_ref: `student` (as the run began, the paper's), or a model's path as in `teacher.path`."""

    @property
    def anchor(self) -> Anchor | None:
        whole = 1 + self.strength
        return Anchor(self.reference, 1 / whole, self.strength / whole)

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        return (1 + self.strength) * _REVERSE.value(student_logprob_CV, teacher_logprob_CV, target_C)

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        value_C, slope_CV = _REVERSE.value_and_slope(student_logprob_CV, teacher_logprob_CV, target_C)
        return value_C * (1 + self.strength), slope_CV.mul_(1 + self.strength)

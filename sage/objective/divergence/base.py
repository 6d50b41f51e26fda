"""The per-token loss ℓ = D(π_θ, π_φ) of method.md section 2, over the full shared vocabulary.

Each divergence gives its value and its slope with respect to the student's logits, so that
`sage.objective.chunked` can finish the gradient of one chunk of tokens before it opens the next. A new
divergence only has to define `value`; the slope then comes from autograd. Estimates from the sampled token,
and truncations to the likeliest ones, are in `sage.objective.divergence.estimators`.

Shape suffixes: C tokens of one chunk, V vocabulary. All values are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sage.config.registry import Component, divergences

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Anchor:
    """A reference model π_ref that takes part in the target: ∝ q^teacher_power · π_ref^reference_power.

    reference: `student` for the student as the run began, else a model's path.
    """

    reference: str
    teacher_power: float
    reference_power: float


class Divergence(Component):
    """Base class. Log-probabilities are normalised; a divergence is >= 0 and exactly 0 for equal arguments.

    target_C: the tokens that were sampled; a divergence between whole distributions does not look at them.
    """

    @property
    def anchor(self) -> Anchor | None:
        """None (the default): the target is the teacher. Else `teacher_logprob_CV` is the blend it names."""
        return None

    @property
    def likeliest(self) -> int | None:
        """How many of the teacher's likeliest tokens the loss has to know, beside the sampled one and what
        all others have together; None (the default): every token."""
        return None

    from_samples: ClassVar[bool] = False
    """The loss estimates a mean over tokens that the student sampled: those of another player will not do."""

    def sampled_at(self, temperature: float, top_p: float) -> Divergence:
        """This loss for tokens that the student sampled at `temperature` (0: greedily) and `top_p`; itself
        (the default) where it compares distributions. Raises ValueError where no such loss is unbiased."""
        return self

    def reads(self, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        """What the loss reads of the teacher's distributions, [C, V] or, the same for all v, [C, 1]; all of
        them unless a divergence says otherwise. Only this leaves the teacher's device."""
        return teacher_logprob_CV

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        """D per token, [C]."""
        raise NotImplementedError

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(D per token [C], ∂D/∂(student logits) [C, V]); the first two arguments may be overwritten.

        Because log-softmax is idempotent, the derivative with respect to the logits is the derivative with
        respect to `student_logprob_CV` taken through one more log-softmax.
        """
        import torch

        with torch.enable_grad():
            logits_CV = student_logprob_CV.detach().requires_grad_()
            value_C = self.value(logits_CV.log_softmax(-1), teacher_logprob_CV, target_C)
            (slope_CV,) = torch.autograd.grad(value_C.sum(), logits_CV)
        return value_C.detach(), slope_CV


@divergences.register("reverse_kl")
class ReverseKL(Divergence):
    """KL(π_θ ‖ π_φ) = Σ_v p (log p − log q): student p first, the paper's choice."""

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        return (student_logprob_CV.exp() * (student_logprob_CV - teacher_logprob_CV)).sum(-1)

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        # ∂D/∂z_v = p_v (log p_v − log q_v − D)
        gap_CV = student_logprob_CV - teacher_logprob_CV
        student_CV = student_logprob_CV.exp_()
        value_C = (student_CV * gap_CV).sum(-1)
        return value_C, gap_CV.sub_(value_C[:, None]).mul_(student_CV)


@divergences.register("forward_kl")
class ForwardKL(Divergence):
    """KL(π_φ ‖ π_θ) = Σ_v q (log q − log p): teacher q first."""

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        return (teacher_logprob_CV.exp() * (teacher_logprob_CV - student_logprob_CV)).sum(-1)

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        # ∂D/∂z_v = p_v − q_v
        gap_CV = teacher_logprob_CV - student_logprob_CV
        teacher_CV = teacher_logprob_CV.exp_()
        value_C = gap_CV.mul_(teacher_CV).sum(-1)
        return value_C, student_logprob_CV.exp_().sub_(teacher_CV)


@divergences.register("jsd")
class JSD(Divergence):
    """β KL(q ‖ m) + (1 − β) KL(p ‖ m) with m = β q + (1 − β) p, as in GKD (arXiv 2306.13649, section 2)."""

    beta: float = Field(gt=0, lt=1)
    """Weight of the teacher in the mixture; 0.5 is the symmetric Jensen-Shannon divergence."""

    def _log_mixture_over_student(self, gap_CV: Tensor) -> Tensor:
        """log(m / p) with gap = log q − log p: no overflow for large gaps, exactly 0 for gap 0."""
        import torch

        below_CV = torch.log1p(self.beta * torch.expm1(gap_CV.clamp(max=0)))
        above_CV = gap_CV + torch.log1p((1 - self.beta) * torch.expm1(-gap_CV.clamp(min=0)))
        return torch.where(gap_CV <= 0, below_CV, above_CV)

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        gap_CV = teacher_logprob_CV - student_logprob_CV
        mixture_CV = self._log_mixture_over_student(gap_CV)
        teacher_CV, student_CV = teacher_logprob_CV.exp(), student_logprob_CV.exp()
        return (
            self.beta * teacher_CV * (gap_CV - mixture_CV) - (1 - self.beta) * student_CV * mixture_CV
        ).sum(-1)

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        # ∂D/∂p_v = (1 − β) log(p_v / m_v) + const, so ∂D/∂z_v = (1 − β) p_v (u_v − Σ p u) with u = log(p / m)
        gap_CV = teacher_logprob_CV - student_logprob_CV
        mixture_CV = self._log_mixture_over_student(gap_CV)
        student_CV = student_logprob_CV.exp_()
        below_C = (student_CV * mixture_CV).sum(-1)
        above_C = gap_CV.sub_(mixture_CV).mul_(teacher_logprob_CV.exp_()).sum(-1)
        slope_CV = mixture_CV.neg_().add_(below_C[:, None]).mul_(student_CV).mul_(1 - self.beta)
        return self.beta * above_C - (1 - self.beta) * below_C, slope_CV

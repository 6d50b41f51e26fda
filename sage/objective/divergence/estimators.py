"""Losses that see less than two whole distributions: the sampled token, the likeliest few, a gate, a mixture.

p is the student, q the teacher, y the sampled token, r = log p(y) − log q(y). Shape suffixes: C tokens of one
chunk, V vocabulary, K kept tokens. All values are in nats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from sage.config.registry import divergences
from sage.objective.confidence.signals import top_k_entropy
from sage.objective.divergence.base import JSD, Divergence, ForwardKL, ReverseKL

if TYPE_CHECKING:
    from torch import Tensor

_REVERSE = ReverseKL(name="reverse_kl")
_FORWARD = ForwardKL(name="forward_kl")


def _chosen(logprob_CV: Tensor, target_C: Tensor) -> Tensor:
    """log-probability of the sampled token; 0 for one outside the shared vocabulary, which teaches
    nothing."""
    vocabulary = logprob_CV.shape[-1]
    chosen_C = logprob_CV.gather(-1, target_C.clamp(max=vocabulary - 1)[:, None]).squeeze(-1)
    return chosen_C.masked_fill(target_C >= vocabulary, 0.0)


def _slope_of_logprob(student_logprob_CV: Tensor, target_C: Tensor, factor_C: Tensor) -> Tensor:
    """factor · ∂ log p(y) / ∂z = factor · (1[v = y] − p_v); overwrites the first argument."""
    vocabulary = student_logprob_CV.shape[-1]
    factor_C = factor_C.masked_fill(target_C >= vocabulary, 0.0)
    slope_CV = student_logprob_CV.exp_().mul_(-factor_C[:, None])
    return slope_CV.scatter_add_(-1, target_C.clamp(max=vocabulary - 1)[:, None], factor_C[:, None])


@divergences.register("sampled_token")
class SampledToken(Divergence):
    """Estimates of KL(p ‖ q) from the sampled token alone (J. Schulman, "Approximating KL divergence", 2020).

    k1 = r (unbiased, can be negative), k2 = r²/2, k3 = e^{−r} − 1 + r. As `loss` the estimate itself is
    differentiated: k2 gives r ∂log p(y), whose mean is the gradient of reverse KL; k3 gives (1 − e^{−r})
    ∂log p(y), whose mean is that of forward KL; k1 gives ∂log p(y), whose mean is zero, and is refused. As
    `advantage` the estimate is a constant: k ∂log p(y), the policy gradient of on-policy distillation with
    reward −k.

    Those means are over y ~ p. Tokens sampled at another temperature τ come from p_τ ∝ p^{1/τ}: each counts
    p(y) / p_τ(y) times then (`sampled_at`), which leaves every mean what it is, at the price of a larger
    variance the farther τ is from 1. A nucleus (top-p below 1) or greedy play never shows some tokens, which
    no factor can mend: refused.
    """

    from_samples: ClassVar[bool] = True

    _temperature: float = PrivateAttr(default=1.0)
    """τ that the tokens were sampled at."""

    estimator: Literal["k1", "k2", "k3"]
    """Which estimate k of KL(p ‖ q)."""
    gradient: Literal["loss", "advantage"]
    """Whether the estimate itself is differentiated, or weighs log p as a constant."""

    @model_validator(mode="after")
    def _has_a_gradient(self) -> SampledToken:
        if self.estimator == "k1" and self.gradient == "loss":
            raise ValueError(
                "divergence.estimator=k1 as a loss has a gradient of mean zero; "
                "use divergence.gradient=advantage, or k2 or k3."
            )
        return self

    @property
    def likeliest(self) -> int:
        return 0

    def sampled_at(self, temperature: float, top_p: float) -> SampledToken:
        if temperature == 0 or top_p < 1:
            what = "temperature 0" if temperature == 0 else f"top_p {top_p:g}"
            raise ValueError(
                f"divergence=sampled_token is unbiased only where every token can be sampled, and {what} "
                "leaves some out; set rollout.top_p=1 and a rollout.temperature above 0, or "
                "divergence=reverse_kl."
            )
        made = self.model_copy()
        made._temperature = temperature
        return made

    def reads(self, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        return _chosen(teacher_logprob_CV, target_C)[:, None]

    def _importance(self, student_logprob_CV: Tensor, target_C: Tensor) -> Tensor | None:
        """p(y) / p_τ(y), [C]; None at temperature 1, where it is one."""
        if self._temperature == 1:
            return None
        log_z_C = (student_logprob_CV / self._temperature).logsumexp(-1)
        chosen_C = _chosen(student_logprob_CV, target_C)
        return (chosen_C * (1 - 1 / self._temperature) + log_z_C).exp()

    def _estimate(self, ratio_C: Tensor) -> Tensor:
        if self.estimator == "k1":
            return ratio_C
        if self.estimator == "k2":
            return ratio_C.square() / 2
        return (-ratio_C).expm1() + ratio_C

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        ratio_C = _chosen(student_logprob_CV, target_C) - _chosen(teacher_logprob_CV, target_C)
        importance_C = self._importance(student_logprob_CV, target_C)
        value_C = self._estimate(ratio_C)
        return value_C if importance_C is None else value_C * importance_C

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        ratio_C = _chosen(student_logprob_CV, target_C) - _chosen(teacher_logprob_CV, target_C)
        value_C = self._estimate(ratio_C)
        if self.gradient == "advantage":
            factor_C = value_C
        else:
            factor_C = ratio_C if self.estimator == "k2" else -(-ratio_C).expm1()
        importance_C = self._importance(student_logprob_CV, target_C)
        if importance_C is not None:
            value_C, factor_C = value_C * importance_C, factor_C * importance_C
        return value_C, _slope_of_logprob(student_logprob_CV, target_C, factor_C)


@divergences.register("nll")
class NegativeLogLikelihood(Divergence):
    """−log p(y): imitation of the tokens in the trajectory, whoever wrote them (`sft`). Not zero for p =
    q."""

    @property
    def likeliest(self) -> int:
        return 0

    def reads(self, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        return teacher_logprob_CV[:, :1]  # nothing; one column keeps the shape

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        return -_chosen(student_logprob_CV, target_C)

    def value_and_slope(
        self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        value_C = -_chosen(student_logprob_CV, target_C)
        return value_C, _slope_of_logprob(student_logprob_CV, target_C, -value_C.new_ones(value_C.shape))


def bucketed(student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Both distributions over the teacher's k likeliest tokens and one bucket for all others, [C, K + 1].

    By the log-sum inequality a divergence of the two is at most that of the whole distributions.
    """
    import torch

    k = min(k, teacher_logprob_CV.shape[-1] - 1)
    kept_CK = teacher_logprob_CV.topk(k, dim=-1).indices

    def coarse(logprob_CV: Tensor) -> Tensor:
        head_CK = logprob_CV.gather(-1, kept_CK)
        # The tail from the tail itself: one minus the head loses it to rounding when the head is nearly all.
        tail_C1 = logprob_CV.scatter(-1, kept_CK, -math.inf).logsumexp(-1, keepdim=True)
        return torch.cat([head_CK, tail_C1], dim=-1)

    return coarse(student_logprob_CV), coarse(teacher_logprob_CV)


@divergences.register("top_k")
class TopK(Divergence):
    """A divergence over the teacher's k likeliest tokens and one bucket for the rest: a cached teacher's top
    K."""

    k: int = Field(ge=1, le=10_000_000)
    """How many of the teacher's likeliest tokens stand for themselves."""
    kind: Literal["reverse_kl", "forward_kl", "jsd"]
    """The divergence that is taken of what is left."""
    beta: float = Field(gt=0, lt=1)
    """As in `jsd`; the others ignore it."""

    @property
    def likeliest(self) -> int:
        return self.k

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        kinds: dict[str, Divergence] = {"reverse_kl": _REVERSE, "forward_kl": _FORWARD}
        kind = kinds.get(self.kind) or JSD(name="jsd", beta=self.beta)
        return kind.value(*bucketed(student_logprob_CV, teacher_logprob_CV, self.k), target_C)


@divergences.register("mixture")
class Mixture(Divergence):
    """w KL(q ‖ p) + (1 − w) KL(p ‖ q): forward and reverse KL side by side."""

    forward_weight: float = Field(ge=0, le=1)
    """w."""

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        w = self.forward_weight
        return w * _FORWARD.value(student_logprob_CV, teacher_logprob_CV, target_C) + (
            1 - w
        ) * _REVERSE.value(student_logprob_CV, teacher_logprob_CV, target_C)


@divergences.register("entropy_gated")
class EntropyGated(Divergence):
    """KL(p ‖ q) + 1[H_φ > τ] KL(q ‖ p) over the teacher's top k: Entropy-Aware OPD (arXiv 2603.07079).

    Reverse KL everywhere, forward KL added where the teacher is unsure. H_φ is here the entropy of the
    teacher's k likeliest tokens, renormalised, and the forward term has a bucket for the tail; both are ours
    where the source could not be read in full.
    """

    tau: float = Field(ge=0, le=100)
    """Nats."""
    top_k: int = Field(ge=2, le=10_000_000)
    """How many of the teacher's likeliest tokens the forward term and H_φ are of."""

    def value(self, student_logprob_CV: Tensor, teacher_logprob_CV: Tensor, target_C: Tensor) -> Tensor:
        reverse_C = _REVERSE.value(student_logprob_CV, teacher_logprob_CV, target_C)
        forward_C = _FORWARD.value(*bucketed(student_logprob_CV, teacher_logprob_CV, self.top_k), target_C)
        return reverse_C + (top_k_entropy(teacher_logprob_CV, self.top_k) > self.tau) * forward_C

"""Confidence rules of the controls and of rivals that need no query: how much of a turn's loss is kept.

Rules with the student's log-probabilities read d_t = mean_j [log π_θ(a_j) − log π_φ(a_j)] over the turn's
sampled tokens: the sampled estimate of KL(π_θ ‖ π_φ), which can be negative. Shape suffix: T tokens of one
turn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny

from sage.objective.certainty import top_k_entropy
from sage.objective.confidence import Confidence, TokenStats
from sage.registry import confidences

if TYPE_CHECKING:
    from torch import Tensor

NestedConfidence = Annotated[SerializeAsAny[Confidence], BeforeValidator(confidences.build)]


@confidences.register("shuffled")
class Shuffled(Confidence):
    """Control: the c_t of another rule, dealt to other turns of the same episode.

    Only turns with i_t > 0 take part, so that the supervised turns keep exactly their values of c_t and only
    which turn has which is by chance. Within the episode, because then no result depends on how a batch is
    split over processes. A turn hands over its mean; its own temperature is the inner rule's.
    """

    rule: NestedConfidence
    """The rule whose values are dealt."""

    @property
    def needs_student(self) -> bool:  # type: ignore[override]
        return self.rule.needs_student

    def read(self, logprob_CV: Tensor) -> Tensor:
        return self.rule.read(logprob_CV)

    def weigh_episode(
        self, turns: Sequence[TokenStats], weights: Sequence[float], rng: random.Random
    ) -> list[Tensor]:
        own = self.rule.weigh_episode(turns, weights, rng)
        taking_part = [t for t, weight in enumerate(weights) if weight > 0 and len(own[t])]
        dealt = rng.sample(taking_part, len(taking_part))
        result = list(own)
        for t, giver in zip(taking_part, dealt, strict=True):
            result[t] = own[t].new_full(own[t].shape, float(own[giver].mean()))
        return result


@confidences.register("entropy_aware")
class EntropyAware(Confidence):
    """1 + bonus · 1[H > τ] at each token, H the entropy of the teacher's top k tokens; in [1, 1 + bonus].

    The paper's baseline (method.md section 7: bonus 1.0, τ 0.8 nats). Not what its own source does
    (arXiv 2603.07079: a gated forward KL); that is the divergence `entropy_gated`. The paper does not state
    k, nor whether the k probabilities are renormalised: 16 (its source's) and yes are ours.
    """

    bonus: float = Field(ge=0)
    tau: float
    """Nats."""
    top_k: int = Field(ge=2)

    def read(self, logprob_CV: Tensor) -> Tensor:
        return top_k_entropy(logprob_CV, self.top_k)

    def weigh(self, stats: TokenStats) -> Tensor:
        return 1 + self.bonus * (stats.signal_T > self.tau).to(stats.signal_T)


def disagreement(stats: TokenStats) -> float:
    """d_t of one turn, in nats. Raises ValueError where the student was not scored."""
    if stats.student_logprob_T is None:
        raise ValueError("A rule that compares the models needs the student's scores; set `needs_student`.")
    gap_T = stats.student_logprob_T.double() - stats.logprob_T.double()
    return float(gap_T.nanmean()) if len(gap_T) else 0.0


@confidences.register("drift")
class Drift(Confidence):
    """c_t = exp(−max(0, d_t) / scale): the teacher is trusted less the farther the student has drifted.

    After SOD (arXiv 2605.07725), which attenuates steps by their divergence and restores them when the
    student comes back. Its exact weight was not at hand; this formula is ours.
    """

    needs_student: ClassVar[bool] = True

    scale: float = Field(gt=0)
    """Nats per token at which the weight has fallen to 1/e."""

    def weigh(self, stats: TokenStats) -> Tensor:
        return stats.top1_T.new_full(
            stats.top1_T.shape, math.exp(-max(0.0, disagreement(stats)) / self.scale)
        )


@confidences.register("disagreement_uncertainty")
class DisagreementUncertainty(Confidence):
    """c_t = clip(1 + γ (u_t / ū − 1), 1 − γ, 1 + γ), u_t = max(0, d_t) + H_t, ū its mean over the episode's
    turns.

    H_t is the student's mean entropy. Turns where the models disagree or the student is unsure count softly
    more. After ATOD's turn-level reweighting (arXiv 2606.27814), whose exact formula was not at hand; this
    one is ours.
    """

    needs_student: ClassVar[bool] = True

    gamma: float = Field(ge=0, le=1)
    """Half the range of the weights."""

    def weigh_episode(
        self, turns: Sequence[TokenStats], weights: Sequence[float], rng: random.Random
    ) -> list[Tensor]:
        use = [max(0.0, disagreement(stats)) + _student_entropy(stats) for stats in turns]
        mean = sum(use) / len(use) if use else 0.0
        result = []
        for stats, u in zip(turns, use, strict=True):
            c = 1.0 if mean == 0 else 1 + self.gamma * (u / mean - 1)
            c = min(max(c, 1 - self.gamma), 1 + self.gamma)
            result.append(stats.top1_T.new_full(stats.top1_T.shape, c))
        return result


def _student_entropy(stats: TokenStats) -> float:
    assert stats.student_entropy_T is not None
    return float(stats.student_entropy_T.double().nanmean()) if len(stats.student_entropy_T) else 0.0


@confidences.register("turn_balanced")
class TurnBalanced(Confidence):
    """c_t = n̄ / |a_t|, n̄ the episode's mean answer length: every turn of an episode weighs the same.

    Standard OPD sums over tokens, so that a long answer outweighs a short one (method.md section 10: the
    paper does not say which it means). Not bounded by one.
    """

    def weigh_episode(
        self, turns: Sequence[TokenStats], weights: Sequence[float], rng: random.Random
    ) -> list[Tensor]:
        lengths = [len(stats.top1_T) for stats in turns]
        mean = sum(lengths) / max(1, sum(length > 0 for length in lengths))
        return [
            stats.top1_T.new_full((length,), mean / max(1, length))
            for stats, length in zip(turns, lengths, strict=True)
        ]

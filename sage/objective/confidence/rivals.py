"""Confidence rules of the controls and of rivals that need no query: how much of a turn's loss is kept.

Formulas of papers are as public reading notes of them state them, equation numbers included; the papers could
not be opened where this was written. Shape suffix: T tokens of one turn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from sage.config.registry import confidences
from sage.objective.confidence.base import Confidence, TokenStats
from sage.objective.confidence.signals import top_k_entropy

if TYPE_CHECKING:
    from torch import Tensor

NestedConfidence = Annotated[SerializeAsAny[Confidence], BeforeValidator(confidences.build)]


@confidences.register("shuffled")
class Shuffled(Confidence):
    """Control: the c_t of another rule, permuted among the turns of the same episode.

    Only turns with i_t > 0 take part, so that the supervised turns keep exactly their values of c_t and only
    which turn has which is by chance. Within the episode, because then no result depends on how a batch is
    split over processes. A turn hands over its mean; its own temperature is the inner rule's.
    """

    rule: NestedConfidence
    """The rule whose values are permuted."""

    @model_validator(mode="after")
    def _one_temperature(self) -> Shuffled:
        if self.rule.teacher_temperature != self.teacher_temperature:
            raise ValueError(
                f"confidence.teacher_temperature is {self.teacher_temperature:g} and that of its rule "
                f"{self.rule.teacher_temperature:g}; set confidence.rule.teacher_temperature alone."
            )
        return self

    @property
    def needs_student(self) -> bool:  # type: ignore[override]
        return self.rule.needs_student

    @property
    def compares_turns(self) -> bool:
        return self.rule.compares_turns  # the deal itself is among supervised turns alone

    @property
    def likeliest(self) -> int | None:
        return self.rule.likeliest

    def read(self, logprob_CV: Tensor) -> Tensor:
        return self.rule.read(logprob_CV)

    def weigh_episode(
        self, turns: Sequence[TokenStats], weights: Sequence[float], rng: random.Random
    ) -> list[Tensor]:
        own = self.rule.weigh_episode(turns, weights, rng)
        taking_part = [t for t, weight in enumerate(weights) if weight > 0 and len(own[t])]
        givers = rng.sample(taking_part, len(taking_part))
        result = list(own)
        for t, giver in zip(taking_part, givers, strict=True):
            result[t] = own[t].new_full(own[t].shape, float(own[giver].mean()))
        return result


@confidences.register("entropy_aware")
class EntropyAware(Confidence):
    """1 + bonus · 1[H > τ] at each token, H the entropy of the teacher's top k tokens; in [1, 1 + bonus].

    The paper's baseline (method.md section 7: bonus 1.0, τ 0.8 nats). Not what its own source does
    (arXiv 2603.07079: a gated forward KL); that is the divergence `entropy_gated`. The paper does not state
    k, nor whether the k probabilities are renormalised: 16 (its source's) and yes are ours.
    """

    bonus: float = Field(ge=0, le=1_000)
    """What an unsure token weighs above 1."""
    tau: float = Field(ge=0, le=100)
    """Nats."""
    top_k: int = Field(ge=2, le=10_000_000)
    """How many of the teacher's likeliest tokens the entropy is of."""

    @property
    def likeliest(self) -> int:
        return self.top_k

    def read(self, logprob_CV: Tensor) -> Tensor:
        return top_k_entropy(logprob_CV, self.top_k)

    def weigh(self, stats: TokenStats) -> Tensor:
        return 1 + self.bonus * (stats.signal_T > self.tau).to(stats.signal_T)


def disagreement(stats: TokenStats) -> float:
    """d_t of one turn, in nats: mean_j |log π_θ(a_j) − log π_φ(a_j)|; 0 for a turn without tokens.

    Raises ValueError where the student was not scored.
    """
    if stats.student_logprob_T is None:
        raise ValueError("A rule that compares the models needs the student's scores; set `needs_student`.")
    gap_T = (stats.student_logprob_T.double() - stats.logprob_T.double()).abs()
    return _mean(gap_T)


def _mean(values_T: Tensor) -> float:
    """Mean over the tokens that have a value (one outside the shared vocabulary has none); 0 without any."""
    mean = float(values_T.nanmean()) if len(values_T) else 0.0
    return 0.0 if math.isnan(mean) else mean


@confidences.register("drift")
class Drift(Confidence):
    """c_t = min((d_1 + ε) / (d_t + ε), 1 + δ), c_1 = 1: the teacher is trusted less the farther the student
    has drifted since its first turn, and fully again where it comes back.

    The step weight of SOD (arXiv 2605.07725, equations 6 and 7: the product of the ratios of successive
    steps, which telescopes to this one; ε 1e-6, δ 0.2). d_t = mean_j |log π_θ(a_j) − log π_φ(a_j)|. Its
    source weighs the sampled token's log-ratio and adds GRPO; here it weighs whatever `divergence` is,
    without a reward. In (0, 1 + δ].
    """

    needs_student: ClassVar[bool] = True

    epsilon: float = Field(gt=0, le=1_000)
    """Nats; keeps the ratio finite."""
    delta: float = Field(ge=0, le=1_000)
    """How far above 1 a turn may weigh on which the models agree more than on the first."""

    def weigh_episode(
        self, turns: Sequence[TokenStats], weights: Sequence[float], rng: random.Random
    ) -> list[Tensor]:
        drifts = [disagreement(stats) + self.epsilon for stats in turns]
        result = []
        for t, (stats, drift) in enumerate(zip(turns, drifts, strict=True)):
            c = 1.0 if t == 0 else min(drifts[0] / drift, 1 + self.delta)
            result.append(stats.top1_T.new_full(stats.top1_T.shape, c))
        return result


@confidences.register("disagreement_uncertainty")
class DisagreementUncertainty(Confidence):
    """c_t = 1 − (1 − d̃_t)(1 − h̃_t): turns count where the models disagree or the student is unsure.

    The turn weight T-DUR of ATOD (arXiv 2606.27814, equations 13 to 16): d_t = mean_j |log π_θ(a_j) −
    log π_φ(a_j)|, h_t = mean_j −log π_θ(a_j), each brought to [0, 1] by the episode's own minimum and
    maximum (1/2 where these are less than 1e-8 apart), joined by a soft OR. ATOD's annealed reinforcement
    part is left out. In [0, 1].
    """

    needs_student: ClassVar[bool] = True

    def weigh_episode(
        self, turns: Sequence[TokenStats], weights: Sequence[float], rng: random.Random
    ) -> list[Tensor]:
        disagreements = _spread_out([disagreement(stats) for stats in turns])
        surprises = _spread_out([_surprise(stats) for stats in turns])
        return [
            stats.top1_T.new_full(stats.top1_T.shape, 1 - (1 - d) * (1 - h))
            for stats, d, h in zip(turns, disagreements, surprises, strict=True)
        ]


def _spread_out(values: list[float]) -> list[float]:
    """Min-max normalised over one episode."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [0.5 if high - low < 1e-8 else (value - low) / (high - low) for value in values]


def _surprise(stats: TokenStats) -> float:
    """The student's mean −log π_θ(a_j): one sample of its entropy per token, in nats."""
    assert stats.student_logprob_T is not None
    return _mean(-stats.student_logprob_T.double())


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

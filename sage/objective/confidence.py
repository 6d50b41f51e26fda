"""How far the teacher is trusted at a turn: the weight c_t of method.md section 4.

A rule maps the teacher's per-token statistics of one turn to one weight per token. The rules here are
constant within a turn; a per-token rule returns different values and nothing else changes. torch is only
needed by the callers, who hand in tensors. Shape suffix: T tokens of one turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sage.registry import Component, confidences

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenStats:
    """The teacher's distribution at each student token of one turn.

    top1_T: highest probability, at the rule's teacher temperature. entropy_T (nats) and logprob_T
    (log-probability of the sampled token) are of the unscaled distribution.
    """

    top1_T: Tensor
    entropy_T: Tensor
    logprob_T: Tensor


class Confidence(Component):
    """Base class. `teacher_temperature` divides the teacher's logits before `top1_T` is taken."""

    teacher_temperature: float = Field(gt=0)
    """1.0 leaves the distribution unscaled; lower is sharper. Apart from the judge, which is greedy."""

    def weigh(self, stats: TokenStats) -> Tensor:
        """c at each token of one turn, in [0, 1], same shape as the statistics."""
        raise NotImplementedError

    def weigh_batch(self, turns: Sequence[TokenStats]) -> list[Tensor]:
        """`weigh` of every turn of one episode; a rule that compares turns overrides this one instead."""
        return [self.weigh(stats) for stats in turns]


@confidences.register("none")
class Unweighted(Confidence):
    """c_t = 1: every supervised turn is trusted alike."""

    def weigh(self, stats: TokenStats) -> Tensor:
        return stats.top1_T.new_ones(stats.top1_T.shape)


@confidences.register("top1")
class Top1(Confidence):
    """c_t = mean over the turn's tokens of max_v π_φ(v | ...), method.md section 4."""

    def weigh(self, stats: TokenStats) -> Tensor:
        return stats.top1_T.mean().expand(stats.top1_T.shape)


@confidences.register("threshold")
class Threshold(Confidence):
    """A gate on the turn's mean signal x. Hard: c_t = 1 where x >= τ, else 0; soft: σ((x − τ) / softness).

    The gate replaces the signal's value: hard with τ = 0 is `none`, with τ > 1 no turn passes.
    """

    signal: Literal["top1"]
    """What is compared with τ: the turn's mean top-1 probability."""
    tau: float
    kind: Literal["hard", "soft"]
    softness: float = Field(gt=0)
    """Width of the soft gate, in units of the signal; the hard gate ignores it."""

    def weigh(self, stats: TokenStats) -> Tensor:
        signal = float(stats.top1_T.double().mean())
        if self.kind == "hard":
            weight = float(signal >= self.tau)
        else:
            # tanh form of the logistic function: no overflow for a narrow gate.
            weight = 0.5 * (1 + math.tanh((signal - self.tau) / (2 * self.softness)))
        return stats.top1_T.new_full(stats.top1_T.shape, weight)

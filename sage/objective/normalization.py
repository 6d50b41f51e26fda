"""The factor Z that keeps the scale of the loss (method.md section 5).

Works on sums over tokens only, so that the sums can be added up over micro-batches and processes before the
factor is taken: the loss cannot depend on how a batch is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from sage.config.registry import Component, normalizations


@dataclass(frozen=True, slots=True)
class WeightSums:
    """Sums over the tokens of a batch or of one episode, each in tokens.

    tokens: N. active: tokens with s > 0. weighted: Σ s. Adding two gives the sums of both.
    """

    tokens: float
    active: float
    weighted: float

    def __add__(self, other: WeightSums) -> WeightSums:
        return WeightSums(
            self.tokens + other.tokens, self.active + other.active, self.weighted + other.weighted
        )

    @staticmethod
    def total(parts: Sequence[WeightSums]) -> WeightSums:
        return sum(parts, WeightSums(0.0, 0.0, 0.0))


class Normalization(Component):
    """Base class. L = (1/N) Σ Z s ℓ; N is all student tokens of the optimizer batch for any scope of Z."""

    flat: ClassVar[bool] = False
    """Every token gets the factor itself instead of Z s: skipped turns are trained on like all others."""

    scope: Literal["batch", "trajectory"]
    """`batch`: one Z for the optimizer batch. `trajectory`: one Z per episode from the episode's own sums; N
    in front of the loss stays the batch's, so that equal weights still give standard OPD."""
    epsilon: float = Field(gt=0, le=1_000)
    """Lower limit of Σ s (in tokens) in the denominator."""
    z_max: float | None = Field(gt=0, le=1e9)
    """Upper limit of Z; null for none."""

    def factor(self, sums: WeightSums) -> float:
        """Z of these sums, capped by `z_max`."""
        z = self.numerator(sums) / max(sums.weighted, self.epsilon)
        return z if self.z_max is None else min(z, self.z_max)

    def numerator(self, sums: WeightSums) -> float:
        """What Σ s is brought to, in tokens."""
        raise NotImplementedError

    def factors(self, episodes: Sequence[WeightSums], batch: WeightSums) -> list[float]:
        """Z for each episode; `batch` holds the sums of the whole optimizer batch, over all processes."""
        if self.scope == "trajectory":
            return [self.factor(sums) for sums in episodes]
        return [self.factor(batch)] * len(episodes)


@normalizations.register("none")
class Unnormalized(Normalization):
    """Z = 1: skipping turns makes the loss smaller. `scope`, `epsilon` and `z_max` change nothing."""

    def factor(self, sums: WeightSums) -> float:
        return 1.0


@normalizations.register("all_token")
class AllToken(Normalization):
    """Z = N / max(Σ s, ε): the mean of Z s over all tokens is one, as in standard OPD."""

    def numerator(self, sums: WeightSums) -> float:
        return sums.tokens


@normalizations.register("active_token")
class ActiveToken(Normalization):
    """Z = N_active / max(Σ s, ε): the mean of Z s over the supervised tokens is one.

    Only the N inside Z counts active tokens. Were the 1/N in front of the loss to count them too, the two
    would cancel and leave exactly `all_token`.
    """

    def numerator(self, sums: WeightSums) -> float:
        return sums.active


@normalizations.register("matched_scale")
class MatchedScale(Normalization):
    """Control: standard OPD at the loss scale of a selective rule. Every token weighs Σ s / N, the rule's
    mean.

    The rule still decides (and asks), but which turn it chose no longer matters: what is left of its effect
    is the scale of the loss. The one to compare with is the same rule with normalization `none`.
    """

    flat: ClassVar[bool] = True

    def numerator(self, sums: WeightSums) -> float:
        return sums.weighted

    def factor(self, sums: WeightSums) -> float:
        z = sums.weighted / max(sums.tokens, self.epsilon)
        return z if self.z_max is None else min(z, self.z_max)

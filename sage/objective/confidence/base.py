"""How far the teacher is trusted at a turn: the weight c_t of method.md section 4.

A rule reads one signal from each of the teacher's distributions and maps a turn's signals to one weight per
token. torch is only needed by the callers, who hand in tensors. Shape suffixes: T tokens of one turn, C
tokens of a chunk, V vocabulary. Rules that only the controls and rivals need are in
`sage.objective.confidence.rivals`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sage.config.registry import Component, confidences
from sage.objective.confidence.signals import LIKELIEST, SIGNALS, Signal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenStats:
    """The teacher's distribution at each student token of one turn.

    top1_T: highest probability, signal_T: what the rule's `read` made of it, both at the rule's teacher
    temperature. entropy_T (nats) and logprob_T (log-probability of the sampled token) are of the unscaled
    distribution. student_logprob_T, student_entropy_T: the same of the student, None unless the rule
    `needs_student`. likeliest_TK, likeliest_logprob_TK: ids of the K likeliest tokens and their unscaled
    log-probabilities, −1 and NaN where they are not known; None where nobody has asked.
    """

    top1_T: Tensor
    entropy_T: Tensor
    logprob_T: Tensor
    signal_T: Tensor
    student_logprob_T: Tensor | None = None
    student_entropy_T: Tensor | None = None
    likeliest_TK: Tensor | None = None
    likeliest_logprob_TK: Tensor | None = None


class Confidence(Component):
    """Base class. `teacher_temperature` divides the teacher's logits before signals are read."""

    needs_student: ClassVar[bool] = False
    """The rule also reads the student's statistics, which costs one more forward pass of the student."""

    @property
    def compares_turns(self) -> bool:
        """A turn's weight depends on the episode's other turns, skipped ones included: it is told of all,
        whether or not they are logged. True for a rule with a `weigh_episode` of its own."""
        return type(self).weigh_episode is not Confidence.weigh_episode

    @property
    def likeliest(self) -> int | None:
        """How many of the teacher's likeliest tokens `read` has to know at temperature 1; None: every token,
        as for a `read` that does not say."""
        return 1 if type(self).read is Confidence.read else None

    teacher_temperature: float = Field(gt=0, le=1_000)
    """1.0 leaves the distribution unscaled; lower is sharper. Apart from the judge, which is greedy."""

    def read(self, logprob_CV: Tensor) -> Tensor:
        """What the rule reads of each distribution, [C]; the top-1 probability unless a rule says
        otherwise."""
        return SIGNALS["top1"](logprob_CV)

    def weigh(self, stats: TokenStats) -> Tensor:
        """c at each token of one turn, same shape as the statistics; in [0, 1] unless the rule says
        otherwise."""
        raise NotImplementedError

    def weigh_episode(
        self, turns: Sequence[TokenStats], weights: Sequence[float], rng: random.Random
    ) -> list[Tensor]:
        """`weigh` of every turn of one episode; a rule that compares turns overrides this one instead.

        weights: i_t of these turns. rng depends on (run seed, step, task, rollout) alone.
        """
        return [self.weigh(stats) for stats in turns]


@confidences.register("none")
class Unweighted(Confidence):
    """c_t = 1: every supervised turn is trusted alike."""

    def weigh(self, stats: TokenStats) -> Tensor:
        return stats.signal_T.new_ones(stats.signal_T.shape)


class SignalConfidence(Confidence):
    """Base of the rules whose weight is a signal itself: its mean over the turn, or each token's own."""

    per: Literal["turn", "token"]
    """`turn` gives all tokens of a turn their mean (the paper); `token` each its own."""

    def weigh(self, stats: TokenStats) -> Tensor:
        if self.per == "token":
            return stats.signal_T.clone()
        return stats.signal_T.mean().expand(stats.signal_T.shape)


@confidences.register("top1")
class Top1(SignalConfidence):
    """c_t = mean over the turn's tokens of max_v π_φ(v | ...), method.md section 4."""


@confidences.register("entropy")
class Entropy(SignalConfidence):
    """c_t = 1 − H(π_φ) / log V: 0 for a uniform teacher, 1 for a certain one."""

    def read(self, logprob_CV: Tensor) -> Tensor:
        return SIGNALS["entropy"](logprob_CV)


@confidences.register("margin")
class Margin(SignalConfidence):
    """c_t = the teacher's best probability less its second best."""

    @property
    def likeliest(self) -> int:
        return 2

    def read(self, logprob_CV: Tensor) -> Tensor:
        return SIGNALS["margin"](logprob_CV)


@confidences.register("threshold")
class Threshold(Confidence):
    """A gate on a signal x. Hard: c = 1 where x >= τ, else 0; soft: σ((x − τ) / softness).

    The gate replaces the signal's value: hard with τ = 0 is `none`, and above the signals' range, 0 to 1,
    nothing would pass.
    """

    signal: Signal
    """What is compared with τ."""
    per: Literal["turn", "token"]
    """`turn`: the signal's mean over the turn, one gate for all its tokens. `token`: a gate for each."""
    tau: float = Field(ge=0, le=1)
    """τ, in units of the signal."""
    kind: Literal["hard", "soft"]
    """Whether the gate is open or shut, or opens gradually."""
    softness: float = Field(gt=0, le=1_000)
    """Width of the soft gate, in units of the signal; the hard gate ignores it."""

    @property
    def likeliest(self) -> int | None:
        return LIKELIEST[self.signal]

    def read(self, logprob_CV: Tensor) -> Tensor:
        return SIGNALS[self.signal](logprob_CV)

    def weigh(self, stats: TokenStats) -> Tensor:
        signal_T = stats.signal_T.double()
        signals = signal_T.tolist() if self.per == "token" else [float(signal_T.mean())]
        weights_T = stats.signal_T.new_tensor([self._gate(x) for x in signals])
        return weights_T if self.per == "token" else weights_T.expand(stats.signal_T.shape)

    def _gate(self, signal: float) -> float:
        if self.kind == "hard":
            return float(signal >= self.tau)
        # tanh form of the logistic function: no overflow for a narrow gate.
        return 0.5 * (1 + math.tanh((signal - self.tau) / (2 * self.softness)))

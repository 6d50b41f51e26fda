"""A rule and a confidence, each one class.

Nothing heavy is imported here: settings are read before torch is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from sage.config.registry import confidences, interventions
from sage.episode import Decision, Label
from sage.objective.confidence.base import Confidence, TokenStats
from sage.objective.intervention.base import Intervention, JudgeFn, Stream, TurnContext

if TYPE_CHECKING:
    from torch import Tensor


@interventions.register("opening")
class Opening(Intervention):
    """The first turns of an episode at full weight, the others not at all; nobody is asked."""

    turns: int = Field(ge=1)
    """How many turns the opening has."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        """One decision per turn, in order; weights are in [0, 1]."""
        return [
            Decision(Label.ALWAYS, 1.0) if context.turn.index < self.turns else Decision(Label.NEVER, 0.0)
            for context in turns
        ]


@confidences.register("cautious")
class Cautious(Confidence):
    """A turn is trusted as far as its least certain token."""

    def weigh(self, stats: TokenStats) -> Tensor:
        """c at each of the turn's T tokens."""
        return stats.top1_T.min().expand(stats.top1_T.shape)

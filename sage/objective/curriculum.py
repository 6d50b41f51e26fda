"""How many turns of an episode are played and trained on at a given optimizer step."""

from __future__ import annotations

from pydantic import Field

from sage.registry import Component, curricula


class Curriculum(Component):
    """Base class. The rollout stops an episode after `turn_limit` turns (TCOD: min(k_start + n η, T))."""

    def turn_limit(self, step: int, turn_budget: int) -> int:
        """Turns to play at 1-based optimizer step `step`, between 1 and `turn_budget`."""
        raise NotImplementedError


@curricula.register("full")
class Full(Curriculum):
    """Every episode has the whole turn budget from the first step on."""

    def turn_limit(self, step: int, turn_budget: int) -> int:
        return turn_budget


@curricula.register("tcod_f2b")
class ForwardToBack(Curriculum):
    """TCOD, forward to back (method.md section 7): k(n) = min(k_start + n η, T) turns, n steps done before.

    The paper does not say whether its first step is n = 0 or 1; here the first step plays `k_start` turns.
    """

    k_start: float = Field(ge=1)
    eta: float = Field(ge=0)
    """Turns more with every optimizer step; a fraction counts once it is whole."""

    def turn_limit(self, step: int, turn_budget: int) -> int:
        return min(int(self.k_start + (step - 1) * self.eta), turn_budget)

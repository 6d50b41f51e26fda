"""How many turns of an episode are played and trained on at a given optimizer step."""

from __future__ import annotations

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

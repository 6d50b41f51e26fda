"""How many turns of an episode are played and trained on at a given optimizer step."""

from __future__ import annotations

from pydantic import Field

from sage.config.registry import Component, curricula


class Curriculum(Component):
    """Base class. The rollout stops an episode after `turn_limit` turns; where `last_turns` is a number the
    teacher plays what comes before."""

    def turn_limit(self, step: int, turn_budget: int) -> int:
        """Turns to play at 1-based optimizer step `step`, between 1 and `turn_budget`."""
        raise NotImplementedError

    def last_turns(self, step: int, turn_budget: int) -> int | None:
        """How many turns at the end of the teacher's way to the goal the student plays; None: all, alone."""
        return None


def _grown(k_start: float, eta: float, step: int) -> int:
    """k_start + n η with n steps done before, a fraction counting once it is whole."""
    return int(k_start + (step - 1) * eta)


@curricula.register("full")
class Full(Curriculum):
    """Every episode has the whole turn budget from the first step on."""

    def turn_limit(self, step: int, turn_budget: int) -> int:
        return turn_budget


@curricula.register("tcod_f2b")
class ForwardToBack(Curriculum):
    """TCOD, forward to back (method.md section 7): k(n) = min(k_start + n η, T) turns, n steps done before.

    The paper does not say whether its first step is n = 0 or 1; here the first step plays `k_start` turns.
    TCOD's own paper (arXiv 2604.24005) has n / η: its η are steps per turn, the inverse of ours.
    """

    k_start: float = Field(ge=1, le=1e6)
    """Turns of the first step."""
    eta: float = Field(ge=0, le=1e6)
    """Turns more with every optimizer step; a fraction counts once it is whole."""

    def turn_limit(self, step: int, turn_budget: int) -> int:
        return min(_grown(self.k_start, self.eta, step), turn_budget)


@curricula.register("tcod_b2f")
class BackToFront(Curriculum):
    """TCOD, back to front: of a game that the teacher wins in L turns it plays the first max(0, L − k(n)),
    the student the rest; k(n) = k_start + n η, n steps done before. Only the student's turns are trained on.

    TCOD's equation 5 (arXiv 2604.24005) as public reading notes state it, which also say that its code hands
    over at the start where there is no winning play, as here. Its teacher's plays are collected beforehand;
    here the teacher plays each game when it is drawn. The student may play on to the turn budget.
    """

    k_start: float = Field(ge=1, le=1e6)
    """Turns that the student plays in the first step."""
    eta: float = Field(ge=0, le=1e6)
    """Turns more with every optimizer step; a fraction counts once it is whole."""

    def turn_limit(self, step: int, turn_budget: int) -> int:
        return turn_budget

    def last_turns(self, step: int, turn_budget: int) -> int | None:
        k = _grown(self.k_start, self.eta, step)
        return k if k < turn_budget else None

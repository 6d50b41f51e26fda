"""What a turn did, judged by the shortest full-information distance to the goal before and after it.

The one place that states the rule: the turn table, the `oracle` intervention, the judge's training data
and the agreement study all read it.
"""

from __future__ import annotations

from enum import StrEnum

from sage.episode import Label


class Effect(StrEnum):
    """The oracle's verdict on one executed turn."""

    PROGRESS = "progress"
    """The goal is nearer (or reached), or, where asked for, the turn searched a new place in vain."""
    NO_EFFECT = "no_effect"
    """As far from the goal as before."""
    HARM = "harm"
    """Farther from the goal, or out of its reach for good."""

    @property
    def label(self) -> Label:
        """The judge's word for it: SKIP, WEAK or STRONG."""
        return _LABEL[self]


_LABEL = {Effect.PROGRESS: Label.SKIP, Effect.NO_EFFECT: Label.WEAK, Effect.HARM: Label.STRONG}


def effect_of(before: int | None, after: int | None, *, searched: bool = False) -> Effect | None:
    """The effect of a turn whose distance to the goal was `before` and then `after`.

    A distance of None is a goal out of reach, or an environment without an oracle; with None on both sides
    there is nothing to tell, and the answer is None. `searched` says that the agent, still looking for
    something, saw a place it had not seen (`SearchingExpert.searched_new`). Such a turn rarely shortens the
    way of one who knows where everything is, yet it is what a good player does: it counts as progress unless
    it leads more than one step away. (Leaving a place next to the unseen goal costs that one step, and no
    player could know.) Leave it False for the strict reading, from distances alone.
    """
    if after is None:
        return None if before is None else Effect.HARM
    if before is None or after < before:
        return Effect.PROGRESS
    if searched and after <= before + 1:
        return Effect.PROGRESS
    return Effect.NO_EFFECT if after == before else Effect.HARM

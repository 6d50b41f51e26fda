"""Shares of the judge's three words: with what probability each is drawn for a turn that could be
executed."""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from sage.config.registry import Settings
from sage.episode import Label

WORDS = (Label.SKIP, Label.WEAK, Label.STRONG)


class LabelRates(Settings):
    """Three shares, overall or for each turn position; `python -m analysis rates RUN` counts a judge's
    own."""

    skip: float = Field(ge=0, le=1)
    """Share of SKIP."""
    weak: float = Field(ge=0, le=1)
    """Share of WEAK."""
    strong: float = Field(ge=0, le=1)
    """Share of STRONG."""
    by_turn: list[tuple[float, float, float]] | None
    """Shares of SKIP, WEAK, STRONG at the turns 0, 1, ...; the three above hold beyond the last. null: they
    hold everywhere."""

    @model_validator(mode="after")
    def _shares_of_one(self) -> LabelRates:
        for shares in [(self.skip, self.weak, self.strong), *(self.by_turn or ())]:
            if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
                raise ValueError(
                    "The rates of SKIP, WEAK and STRONG are shares of one; "
                    f"{', '.join(f'{share:g}' for share in shares)} add up to {sum(shares):g}."
                )
        return self

    def at(self, turn: int) -> tuple[float, float, float]:
        """Shares of SKIP, WEAK, STRONG at 0-based `turn`."""
        if self.by_turn is not None and turn < len(self.by_turn):
            return self.by_turn[turn]
        return self.skip, self.weak, self.strong

    def draw(self, turn: int, rng: random.Random) -> Label:
        """One word."""
        return rng.choices(WORDS, self.at(turn))[0]

    def share(self, label: Label, turn: int) -> float:
        """Probability that `draw` gives `label`."""
        return dict(zip(WORDS, self.at(turn), strict=True)).get(label, 0.0)

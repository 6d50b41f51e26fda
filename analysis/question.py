"""What is asked of the records, as one value that travels: which number, held against what, how surely, and
of which episodes.

`Question(baseline="opd", level=0.9)` is what `--baseline opd --level 0.9` says. A function takes from it what
it needs; no function has a default of its own for what stands here, but for `draws` (see there).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace

from analysis.errors import Refusal

DESIGNS = ("independent", "paired", "blocked")
AVERAGES = ("micro", "macro", "splits")


@dataclass(frozen=True)
class Question:
    """A question to the records. Rates and margins are in the metric's unit."""

    baseline: str | None = None
    """Method that the others are held against."""
    metric: str = "won"
    """Column of the episodes whose mean counts; `won` is the success rate."""
    average: str = "micro"
    """Which mean over games: every game counts the same (`micro`), every task type does (`macro`), or every
    split of an environment does (`splits`)."""
    level: float = 0.95
    """Confidence level of every interval; a test decides at 1 − level."""
    draws: int | None = None
    """Draws of a bootstrap; None: as many as the question usually takes (its `DRAWS`)."""
    seed: int = 0
    """Of everything random."""
    design: str = "independent"
    """How runs of two methods are compared (`analysis.designs`)."""
    unpaired: str = "refuse"
    """Runs without a partner in a paired or blocked design: `refuse`, or `drop`."""
    margin: float | None = None
    """Within it two methods count as equal; None: equivalence is not asked."""
    family: tuple[str, ...] = ()
    """Methods of the declared family: Holm's correction over them alone."""
    env: str | None = None
    split: str | None = None
    source: str | None = None
    """Where the games come from: official, generated, …"""
    methods: tuple[str, ...] | None = None
    """None: all that there are."""
    step: int | None = None
    """The evaluation at this optimizer step; None: each run's last."""
    games: str = "all"
    """`common`: those that all runs played, where not all did; `all` refuses such runs."""
    leave_out: tuple[str, ...] = ()
    """Tasks that do not count."""

    @classmethod
    def of(cls, args: argparse.Namespace) -> Question:
        """What a command line asks: its options that have the name of a field."""
        said = {field.name: getattr(args, field.name, None) for field in fields(cls)}
        return cls(**{name: value for name, value in said.items() if value is not None})

    @property
    def against(self) -> str:
        """The baseline. Raises Refusal where none was named."""
        if self.baseline is None:
            raise Refusal("There is no baseline to hold the methods against; name one.")
        return self.baseline

    def of_training(self) -> Question:
        """The same of training turns: of the choice of evaluations only environment and source apply, and of
        draws there are as many as usual."""
        return Question(level=self.level, seed=self.seed, env=self.env, source=self.source)

    def as_usual(self) -> Question:
        """The same with as many draws as the question usually takes."""
        return replace(self, draws=None)


EVERYTHING = Question()
"""The success rate in every last evaluation, at 95 %."""

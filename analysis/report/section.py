"""A headed part of the report, and what the report was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.plan import Plan


@dataclass
class Part:
    """One piece of a section: a paragraph, a table or a figure. `wide` tables are folded away in the page."""

    kind: str
    text: str = ""
    frame: pd.DataFrame | None = None
    figure: Figure | None = None
    name: str = ""
    folded: bool = False
    small: bool = False


@dataclass
class Section:
    """A headed part of the report."""

    title: str
    anchor: str
    tag: str = ""
    parts: list[Part] = field(default_factory=list)

    def say(self, text: str, kind: str = "how") -> None:
        """A paragraph."""
        self.parts.append(Part(kind, text))

    def table(self, name: str, frame: pd.DataFrame, caption: str = "", folded: bool = False) -> None:
        """A table; it is also written as CSV and LaTeX under `name`."""
        self.parts.append(Part("table", caption, frame=frame, name=name, folded=folded))

    def draw(self, name: str, figure: Figure, caption: str, small: bool = False) -> None:
        """A plot."""
        self.parts.append(Part("figure", caption, figure=figure, name=name, small=small))


@dataclass
class Options:
    """What `write_report` was asked."""

    baseline: str
    metric: str
    average: str
    draws: int
    level: float
    seed: int
    choice: dict[str, Any]
    design: str = "independent"
    unpaired: str = "refuse"
    plan: Plan | None = None
    key: str | None = None
    published: str | None = None

    def place(self) -> dict[str, Any]:
        """Of the evaluation's choices only the environment and source apply to training turns."""
        return {name: self.choice[name] for name in ("env", "source") if self.choice.get(name)}

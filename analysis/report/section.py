"""A headed part of the report, and what the report was asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from analysis.plan import Plan
from analysis.question import Question


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


@dataclass(frozen=True)
class Brief:
    """What a report was asked."""

    question: Question
    title: str = "Report"
    time: str = ""
    """Printed as it is; empty: none, so that equal records give equal bytes."""
    plan: Plan | None = None
    key: str | None = None
    """Setting of a sweep among the records."""
    published: str | None = None
    """CSV of printed tables to check."""
    palette: dict[str, str] = field(default_factory=dict)
    """One colour per method."""

"""A headed part of the report, and what the report was asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from analysis.plan import Plan
from analysis.question import Question


@dataclass
class Part:
    """One piece of a section: a paragraph, a table or a figure. `folded` tables open on a click."""

    kind: str
    text: str = ""
    frame: pd.DataFrame | None = None
    figure: Figure | None = None
    name: str = ""
    folded: bool = False


@dataclass
class Section:
    """A headed part of the report."""

    title: str
    name: str
    """That of its question; the page's anchor."""
    tag: str = ""
    parts: list[Part] = field(default_factory=list)

    @property
    def shows(self) -> bool:
        """Whether it has a table or a figure, and not words alone."""
        return any(part.kind in ("table", "figure") for part in self.parts)

    def say(self, text: str, kind: str = "how") -> None:
        """A paragraph."""
        self.parts.append(Part(kind, text))

    def table(self, name: str, frame: pd.DataFrame, caption: str = "", folded: bool = False) -> None:
        """A table; it is also written as CSV and LaTeX under `name`. One without rows is left out."""
        if len(frame):
            self.parts.append(Part("table", caption, frame=frame, name=name, folded=folded))

    def draw(self, name: str, figure: Figure, caption: str) -> None:
        """A plot."""
        self.parts.append(Part("figure", caption, figure=figure, name=name))


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

"""The report as one HTML page: styles, plots and the reader's data are inside it.

Every text of the records passes through the template's autoescape; what is marked safe is our own style, our
script, our plots, and JSON that no text can leave (`analysis.report.reader.as_json`).
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from analysis import figures
from analysis.records import Records
from analysis.report.head import Head
from analysis.report.reader import as_json, sample
from analysis.report.section import Brief, Part, Section
from analysis.report.table import as_table

FEW = 5
"""Single verdicts that are open in the head; the others are folded."""


def page(sections: list[Section], records: Records, head: Head, brief: Brief) -> str:
    """The report as one HTML page."""
    room = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    room.filters |= {"as_table": as_table, "as_json": _json, "drawn": _drawn}
    return room.from_string(_file("page.html")).render(
        title=brief.title,
        time=brief.time,
        style=Markup(_file("page.css")),
        script=Markup(_file("reader.js")),
        head=head,
        few=FEW,
        short=int(records.runs["used"].sum()) == 1,
        notes=records.notes,
        sections=sections,
        episodes=sample(records.turns),
        colours=figures.LABEL_COLOURS,
    )


def _file(name: str) -> str:
    return resources.files("analysis.report").joinpath(name).read_text(encoding="utf-8")


def _json(data: Any) -> Markup:
    return Markup(as_json(data))


def _drawn(part: Part) -> Markup:
    assert part.figure is not None
    return Markup(figures.svg(part.figure, part.name))

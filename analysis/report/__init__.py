"""The report: one self-contained HTML file, and the same as Markdown, LaTeX tables and CSV.

Invariant: the same records, options and time stamp give the same bytes. Nothing is fetched: styles, plots
and the reader's data are inside the page. A part that the records cannot support stays in the page as the
sentence that says why. What was pre-registered stands first and apart; everything else is marked exploratory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import figures, questions, render
from analysis.check import check_baseline, check_metric
from analysis.errors import Refusal
from analysis.records import Records
from analysis.report.markdown import markdown
from analysis.report.page import page
from analysis.report.section import Brief, Section

__all__ = ["Brief", "write_report"]


def write_report(records: Records, out: Path, brief: Brief) -> dict[str, pd.DataFrame]:
    """Write `report.html`, `report.md`, `tables/*.csv` and `tables/*.tex` below `out`; returns the list of
    files."""
    check_baseline(brief.question.against, sorted(records.runs["method"].unique()))
    if len(records.episodes):
        check_metric(records.episodes, brief.question.metric)
    sections = build(records, brief)
    (out / "tables").mkdir(parents=True, exist_ok=True)
    written = {
        "report.html": page(sections, records, brief.title, brief.time),
        "report.md": markdown(sections, brief.title, brief.time),
    }
    for part in (part for section in sections for part in section.parts):
        if part.frame is not None:
            written[f"tables/{part.name}.csv"] = part.frame.to_csv(index=False, lineterminator="\n")
            written[f"tables/{part.name}.tex"] = render.latex(part.frame, part.text, f"tab:{part.name}")
    for name, text in written.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    rows = [{"file": name, "bytes": len(text.encode())} for name, text in written.items()]
    return {"files": pd.DataFrame(rows)}


def build(records: Records, brief: Brief) -> list[Section]:
    """All sections in order. A refusal inside one becomes its sentence; one with nothing in it is left
    out."""
    palette = figures.colours(records.runs["method"], brief.question.baseline)
    brief = replace(brief, palette=palette)
    asked = [(name, one) for name, one in questions.every().items() if one.section is not None]
    sections = []
    for name, one in sorted(asked, key=lambda item: item[1].rank):
        section = Section(one.title, name)
        try:
            assert one.section is not None
            one.section(section, records, brief)
        except Refusal as refusal:
            section.say(f"Not in this report: {refusal}", "refusal")
        if section.parts:
            sections.append(section)
    return sections

"""The report: one self-contained HTML file, and the same as Markdown, LaTeX tables and CSV.

Invariant: the same records, options and time stamp give the same bytes. Nothing is fetched: styles, plots
and the reader's data are inside the page. Status and verdict stand first (`analysis.report.head`), what was
pre-registered before what was explored. A question that the records cannot answer stays in the page, below
those that they can, as the sentence that says why.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import figures, questions, render
from analysis.check import check_baseline, check_metric
from analysis.errors import Refusal
from analysis.records import Records
from analysis.report.head import head_of
from analysis.report.markdown import markdown
from analysis.report.page import page
from analysis.report.section import Brief, Section

__all__ = ["Brief", "write_report"]


def write_report(records: Records, out: Path, brief: Brief) -> dict[str, pd.DataFrame]:
    """Write `report.html`, `report.md`, `tables/*.csv` and `tables/*.tex` below `out`; returns the list of
    files. Raises Refusal where there are several methods and no baseline."""
    methods = sorted(records.runs["method"].unique())
    if brief.question.baseline is not None:
        check_baseline(brief.question.baseline, methods)
    elif len(methods) > 1:
        raise Refusal(
            f"There are {len(methods)} methods here ({', '.join(methods)[:160]}); name the one that the "
            "others are held against, with --baseline."
        )
    if len(records.episodes):
        check_metric(records.episodes, brief.question.metric)
    sections = build(records, brief)
    head = head_of(sections, records, brief)
    (out / "tables").mkdir(parents=True, exist_ok=True)
    written = {
        "report.html": page(sections, records, head, brief),
        "report.md": markdown(sections, head, brief),
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
    """The sections in order: first those that show something, then those that say why they do not. One with
    nothing in it is left out."""
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
    return sorted(sections, key=lambda section: not section.shows)

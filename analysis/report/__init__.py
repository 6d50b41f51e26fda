"""The report: one self-contained HTML file, and the same as Markdown, LaTeX tables and CSV.

Invariant: the same records, options and time stamp give the same bytes. Nothing is fetched: styles, plots
and the reader's data are inside the page. A part that the records cannot support stays in the page as the
sentence that says why. What was pre-registered stands first and apart; everything else is marked exploratory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, render
from analysis.check import check_baseline, check_metric
from analysis.errors import Refusal
from analysis.load import Records
from analysis.plan import read_plan
from analysis.report import (
    compared,
    controlled,
    judge,
    measured,
    plan,
    printed,
    provenance,
    skipped,
    spread,
    sweep,
)
from analysis.report.markdown import markdown
from analysis.report.page import page
from analysis.report.section import Options, Section

SECTIONS = (
    ("Pre-registered hypotheses", "plan", plan.fill),
    ("What was measured", "summary", measured.fill),
    ("Against the baseline", "compare", compared.fill),
    ("Controls: what could bring the claims down", "controls", controlled.fill),
    ("Where the spread comes from", "variance", spread.fill),
    ("The judge against the oracle", "agreement", judge.fill),
    ("The skipped turns", "skipped", skipped.fill),
    ("The sweep", "sweep", sweep.fill),
    ("Printed tables", "published", printed.fill),
    ("Provenance", "provenance", provenance.fill),
)
"""Title, anchor and content of each section, in order."""


def write_report(
    records: Records,
    out: Path,
    *,
    baseline: str,
    time: str = "",
    title: str = "Report",
    plan: str | None = None,
    key: str | None = None,
    published: str | None = None,
    metric: str = "won",
    average: str = "micro",
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    design: str = "independent",
    unpaired: str = "refuse",
    **choice: Any,
) -> dict[str, pd.DataFrame]:
    """Write `report.html`, `report.md`, `tables/*.csv` and `tables/*.tex` below `out`; returns the list of
    files."""
    methods = sorted(records.runs["method"].unique())
    check_baseline(baseline, methods)
    if len(records.episodes):
        check_metric(records.episodes, metric)
    options = Options(
        baseline=baseline,
        metric=metric,
        average=average,
        draws=draws,
        level=level,
        seed=seed,
        choice=choice,
        design=design,
        unpaired=unpaired,
        plan=read_plan(plan) if plan else None,
        key=key,
        published=published,
    )
    sections = build(records, options)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tables").mkdir(exist_ok=True)
    written = {
        "report.html": page(sections, records, title, time),
        "report.md": markdown(sections, title, time),
    }
    for section in sections:
        for part in section.parts:
            if part.frame is not None:
                written[f"tables/{part.name}.csv"] = part.frame.to_csv(index=False, lineterminator="\n")
                written[f"tables/{part.name}.tex"] = render.latex(part.frame, part.text, f"tab:{part.name}")
    for name, text in written.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    rows = [{"file": name, "bytes": len(text.encode())} for name, text in written.items()]
    return {"files": pd.DataFrame(rows)}


def build(records: Records, options: Options) -> list[Section]:
    """All sections in order. A refusal inside one becomes its sentence."""
    palette = figures.colours(records.runs["method"], options.baseline)
    sections = []
    for title, anchor, fill in SECTIONS:
        if (anchor == "sweep" and not options.key) or (anchor == "published" and not options.published):
            continue
        section = Section(title, anchor)
        try:
            fill(section, records, options, palette)
        except Refusal as refusal:
            section.say(f"Not in this report: {refusal}", "refusal")
        sections.append(section)
    return sections

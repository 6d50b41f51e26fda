"""The report in a few sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.report.section import Section


def headlines(sections: list[Section]) -> list[str]:
    """The report in a few sentences: planned hypotheses, then verdicts against the baseline."""
    lines = []
    tables = {
        part.name: part.frame for section in sections for part in section.parts if part.frame is not None
    }
    for row in _rows(tables, "plan_hypotheses"):
        lines.append(
            f"Planned: {row['hypothesis']} ({row['method']} against {row['baseline']} on {row['split']}): "
            f"{row['verdict']}, {row['difference']:+.3f}{_interval(row)}; {row['status']}."
        )
    for row in _rows(tables, "compare_full"):
        lines.append(
            f"{row['method']} on {row['env']} {row['split']}: {row['difference']:+.3f}{_interval(row)} "
            f"({row['runs']} and {row['runs_baseline']} runs): {row['verdict']}."
        )
    return lines


def _interval(row: dict[str, Any]) -> str:
    """` [low, high]`; nothing where one run a side leaves no interval."""
    return "" if np.isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]"


def _rows(tables: dict[str, pd.DataFrame], name: str) -> list[dict[str, Any]]:
    frame = tables.get(name)
    return [] if frame is None else frame.to_dict("records")

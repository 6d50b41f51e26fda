"""A sweep among the records."""

from __future__ import annotations

from analysis import figures
from analysis.load import Records
from analysis.report.section import Options, Section
from analysis.thresholds import thresholds


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    section.tag = "exploratory"
    frame = thresholds(records, str(options.key), options.metric, seed=options.seed, **options.choice)
    section.say(
        "The best of many settings looks better than it is. selection_bias is what the choice adds; "
        "corrected has it taken off. Only fresh seeds and held-out games confirm a winner."
    )
    section.draw("sweep", figures.sweep(frame, str(options.key)), f"Objective over {options.key}.")
    section.table("thresholds", frame, "Settings")

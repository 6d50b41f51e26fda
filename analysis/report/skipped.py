"""The skipped turns."""

from __future__ import annotations

from analysis.load import Records
from analysis.report.section import Options, Section
from analysis.skipped import tables


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    found = tables(records, options.level, seed=options.seed, **options.place())
    section.say(
        "skipped_harm: share of the turns that moved away from the goal and were skipped all the same; "
        "supervised_progress: share of good turns that were supervised. A label never acts inside its own "
        "episode, so what follows a skipped turn describes the errors that the judge lets pass; it is no "
        "effect of skipping."
    )
    errors = found["errors"]
    section.table("skipped_errors", errors[errors["by"] == "all"], "Wrong decisions")
    section.table(
        "skipped_errors_by",
        errors[errors["by"] != "all"],
        "By distance, length, position, error and task type",
        folded=True,
    )
    section.table(
        "skipped_differences",
        found["differences"],
        "Standardised differences, supervised minus skipped (|0.1| counts as alike)",
    )
    section.table(
        "skipped_aftermath",
        found["aftermath"],
        "Expert steps gained in the turns after a wrongly skipped turn, and after matched supervised ones",
    )
    section.table("skipped_weighted", found["weighted"], "Weighted by logged propensities", folded=True)

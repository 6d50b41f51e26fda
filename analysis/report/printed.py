"""Printed tables that the report was asked to check."""

from __future__ import annotations

from analysis.load import Records
from analysis.published import tables
from analysis.report.section import Options, Section


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    found = tables(str(options.published), options.baseline)
    section.say(
        "Percentages that no whole number of episodes gives, and what each printed difference is worth."
    )
    section.table("published_impossible", found["impossible"], "Impossible percentages", folded=True)
    section.table("published_sizes", found["sizes"], "Number of episodes stated, and the one that fits best")
    if "claims" in found:
        section.table("published_claim_lines", found["claim_lines"], "What each claim is worth", folded=True)
        section.table("published_claims", found["claims"], "Numbers of the claims", folded=True)
    section.table(
        "published_duplicates", found["duplicates"], "Rows that print the same numbers", folded=True
    )

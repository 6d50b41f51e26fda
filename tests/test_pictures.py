"""Every picture of the docs is made by a script, which can make it anew, and is shown on a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE_BY = {
    "docs/make_terminal_picture.py": ["guide/terminal.png"],
    "docs/make_view_pictures.py": [
        "guide/view_narrow.png",
        "guide/view_pair.png",
        "guide/view_parting.png",
        "guide/view_runs.png",
        "guide/view_tokens.png",
    ],
    "docs/make_tracking_pictures.py": [
        "guide/mlflow_compare.png",
        "guide/mlflow_run.png",
        "guide/mlflow_runs.png",
        "guide/mlflow_turns.png",
        "guide/mlflow_view.png",
        "guide/report_wide.png",
        "evidence/report_narrow.png",
        "evidence/site_front.png",
    ],
    "benchmarks/growth.py": ["evidence/growth.png"],
    "benchmarks/dose_response.py": ["evidence/results/positive_control.png"],
    "benchmarks/when_it_matters.py": ["evidence/results/when_it_matters.png"],
}
"""A script, and the pictures of docs/ that it makes."""
BY_HAND = ["evidence/sweep_dashboard.png", "evidence/sweep_mlflow.png"]
"""Of one study that cannot be had again; its page says of which commit, and what is different now."""
ENDINGS = {".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"}


def test_every_picture_has_a_script_that_makes_it() -> None:
    there = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*") if p.suffix.lower() in ENDINGS}
    listed = [*BY_HAND, *(picture for pictures in MADE_BY.values() for picture in pictures)]
    assert sorted(there) == sorted(listed)


@pytest.mark.parametrize("script", MADE_BY)
def test_the_script_names_what_it_makes(script: str) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    missing = [picture for picture in MADE_BY[script] if Path(picture).name not in text]
    assert not missing


def test_every_picture_is_shown_on_a_page() -> None:
    shown = {
        (page.parent / target).resolve()
        for page in (ROOT / "README.md", *DOCS.rglob("*.md"))
        for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
    unseen = [p for pictures in MADE_BY.values() for p in pictures if (DOCS / p).resolve() not in shown]
    assert not unseen

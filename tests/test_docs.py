"""Pages that are generated are current, and every page that is named is there."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_page_of_methods_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_methods.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_preset_states_its_source() -> None:
    for path in (ROOT / "conf" / "method").glob("*.yaml"):
        assert "\n# Source: " in path.read_text(encoding="utf-8"), path.name


_LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _prose(page: Path) -> str:
    """Without code, in which brackets are no links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and mkdocs make them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_and_picture_of_a_page_leads_somewhere(page: Path) -> None:
    dead = []
    for _, target in _LINK.findall(_prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            dead.append(target)
    assert not dead, dead


def test_every_page_that_is_named_in_code_or_prose_exists() -> None:
    """`docs/guide/launch.md` in a docstring, a message or a comment."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = listed.stdout.split() or [p.relative_to(ROOT).as_posix() for p in PAGES]
    dead = []
    for file in files:
        if file == "CHANGELOG.md" or not file.endswith((".py", ".md", ".yaml", ".toml", ".cff")):
            continue
        text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
        named = re.findall(r"\bdocs/[\w/]+\.(?:md|png|py|ipynb)\b", text)
        dead += [f"{file}: {name}" for name in named if not (ROOT / name).exists()]
    assert not dead, dead


EVIDENCE = sorted((ROOT / "docs" / "evidence").rglob("*.md"))
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_ASKED = re.compile(
    r"# [^\n]+\n\n\*\*Question:\*\* [^\n]+\? · "
    rf"[^\n]*\b\d{{1,2}} (?:{_MONTH}) 20\d\d\b[^\n]*\bcommits? `[0-9a-f]{{7,40}}`[^\n]*\.\n"
)


@cache
def _commits() -> frozenset[str]:
    """All that lead to this one; none where the history is not here, or not whole."""
    if not (ROOT / ".git").exists():
        return frozenset()
    shallow = ["git", "rev-parse", "--is-shallow-repository"]
    if subprocess.run(shallow, cwd=ROOT, capture_output=True, text=True).stdout.strip() != "false":
        return frozenset()
    known = subprocess.run(["git", "rev-list", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(known.stdout.split())


@pytest.mark.parametrize("page", EVIDENCE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_evidence_begins_with_its_question_the_date_and_the_commit(page: Path) -> None:
    begin = _ASKED.match(page.read_text(encoding="utf-8"))
    assert begin, "below the title: **Question:** … ? · Measured 3 May 2027, recorded in commit `0123abc`."
    if not _commits():
        return
    for named in re.findall(r"`([0-9a-f]{7,40})`", begin[0]):
        assert any(commit.startswith(named) for commit in _commits()), f"no commit here begins with {named}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "guide").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_the_guide_is_read_in_some_minutes(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").split()) <= 1200


def test_the_front_page_is_one_screen_or_two() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_every_page_is_in_the_menu_of_the_site() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = {name.lstrip("/") for name in re.findall(r"[\w/]+\.md", menu)}
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not page.startswith("examples/")} <= named

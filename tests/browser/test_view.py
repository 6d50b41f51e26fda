"""The viewer in a real browser: opened, read by keyboard, compared, followed while a run goes on.

Whatever the agents and their worlds have said is text and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.records.rows import RunKey
from sage.records.tables import Tables
from sage.view.answers import Answers
from sage.view.export import one_file
from sage.view.library import Library
from tests.browser.devtools import Page, browser
from tests.browser.test_report import HOSTILE
from tests.browser.viewer import served
from tests.view.made import make_pair, make_run, record_evaluation, record_step, words

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pair(tmp_path_factory.mktemp("view") / "runs")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.resize(1400, 900)
        yield page


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    with served(runs) as address:
        yield address


@pytest.fixture(params=["server", "file"])
def opened(request: pytest.FixtureRequest, page: Page, address: str, runs: Path, tmp_path: Path) -> Page:
    """The same reader from a server and from one file on the disk."""
    if request.param == "server":
        page.open(address)
    else:
        text, _ = one_file(Answers(Library([runs])), None)
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        page.open((tmp_path / "page.html").as_uri())
    return page


def open_run(page: Page, method: str) -> None:
    """By its link in the list."""
    page.wait("document.querySelectorAll('.runs tbody tr').length === 2")
    links = "[...document.querySelectorAll('.runs a')]"
    page.value(f"{links}.find((a) => a.textContent === '{method}').click()")
    page.wait("document.getElementById('main').dataset.place === 'run'")


def open_trained(page: Page) -> None:
    """The episode of training that has tokens."""
    page.value(
        "(() => { const s = document.getElementById('moment');"
        "s.value = [...s.options].find((o) => o.text.startsWith('training after 0')).value;"
        "s.dispatchEvent(new Event('change')); })()"
    )
    page.wait("[...document.querySelectorAll('td')].some((td) => td.textContent === 'recorded')")
    row = "[...document.querySelectorAll('tr')].find((r) => r.textContent.includes('recorded'))"
    page.value(f"{row}.querySelector('a').click()")
    page.wait("document.getElementById('main').dataset.place === 'episode'")


def test_runs_are_listed_found_and_picked(opened: Page) -> None:
    page = opened
    page.wait("document.querySelectorAll('.runs tbody tr').length === 2")
    assert "75.0 [30.1, 95.4]" in page.text(".runs")
    assert page.value("location.hash") in ("#/", "")  # the token is no longer in the address
    page.press("/")
    page.type("sage seed=0")
    page.wait("document.querySelectorAll('.runs tbody tr').length === 1")
    page.value("document.getElementById('search').value = ''")
    page.type(" ")
    page.wait("document.querySelectorAll('.runs tbody tr').length === 2")
    for number in (1, 2):
        page.click(f".runs tbody tr:nth-child({number}) input")
    page.wait("document.querySelectorAll('.plot canvas').length >= 6")
    assert "Read these two side by side" in page.text("main")
    assert "intervention.name" in page.text("main")
    assert page.complaints() == []


def test_a_trajectory_is_read_by_keyboard_alone(opened: Page) -> None:
    page = opened
    open_run(page, "sage_opd")
    open_trained(page)
    assert page.text(".turn h2").startswith("Turn 0")
    assert "label-SKIP" in page.value("document.querySelector('.strip [aria-current=true]').className")
    page.press("ArrowRight")
    assert page.text(".turn h2").startswith("Turn 1")
    assert page.value("document.activeElement.getAttribute('aria-label')").startswith("turn 1, STRONG")
    assert "turn=1" in page.value("location.hash")
    page.press("End")
    assert page.text(".turn h2").startswith("Turn 2")
    assert "FALLBACK" in page.text(".turn h2")
    page.press("ArrowRight", "Home")
    assert page.text(".turn h2").startswith("Turn 0")
    assert "put a mug in a shelf." in page.text(".judge")
    assert page.text(".judge .action") == "SKIP"
    page.press("n")
    page.wait("document.querySelector('h1').textContent.includes('game-1')")
    page.press("u")
    page.wait("document.getElementById('main').dataset.place === 'run'")
    assert page.complaints() == []


def test_tokens_are_coloured_and_say_what_the_teacher_would_say(opened: Page) -> None:
    page = opened
    open_run(page, "sage_opd")
    open_trained(page)
    said = words("Thought: look\nAction: go to shelf 1")
    assert page.texts(".token") == [one.replace("\n", "↵") for one in said]
    fill = "[...document.querySelectorAll('.token')].map((t) => getComputedStyle(t).backgroundColor)"
    by_divergence = page.value(fill)
    assert len(set(by_divergence)) > 4
    page.press("c")
    page.wait("document.querySelector('.scale').textContent.startsWith('teacher less student')")
    assert page.value(fill) != by_divergence
    assert "by=gap" in page.value("location.hash")
    page.value("document.querySelectorAll('.token')[2].focus()")
    tip = page.text(".tip")
    assert "75.0 %" in tip
    assert "12.5 %" in tip
    assert page.value("document.querySelector('.tip').hidden") is False
    page.press("Escape")
    assert page.value("document.querySelector('.tip').hidden") is True
    assert "entropy teacher" in tip  # unknown of a served teacher, and said so
    assert page.complaints() == []


def test_filters_find_turns_and_a_deep_link_opens_the_same_turn(opened: Page) -> None:
    page = opened
    open_run(page, "sage_opd")
    page.click("#filter-strong")
    page.wait("document.querySelector('main').textContent.includes('4 turns')")
    assert page.value("document.getElementById('filter-strong').getAttribute('aria-pressed')") == "true"
    page.press("Tab", " ")  # the next filter, by keyboard
    page.wait("document.querySelector('main').textContent.includes('0 turns')")
    page.press(" ")
    page.wait("document.querySelector('main').textContent.includes('4 turns')")
    page.value("document.querySelector('td .chip').closest('tr').querySelector('a').click()")
    page.wait("document.getElementById('main').dataset.place === 'episode'")
    assert page.text(".turn h2").startswith("Turn 1")
    link = page.value("location.href")
    page.open(link)
    assert page.text(".turn h2").startswith("Turn 1")
    assert page.complaints() == []


def test_a_run_says_whose_games_it_played(opened: Page) -> None:
    page = opened
    page.wait("document.querySelectorAll('.runs tbody tr').length === 2")
    assert page.texts(".runs tbody td:nth-child(4)") == ["alfworldgenerated"] * 2
    open_run(page, "opd")
    assert "alfworld (generated games)" in page.text("main")


def test_an_answer_that_was_overtaken_is_not_shown(page: Page, address: str) -> None:
    page.open(address)
    open_run(page, "sage_opd")
    page.value(
        "(() => { const plain = window.fetch; window.answers = 0; window.fetch = async (...asked) => {"
        "const answer = await plain(...asked);"
        "if (!String(asked[0]).includes('api/turns')) return answer;"
        "await new Promise((done) => setTimeout(done, 300)); window.answers += 1; return answer; }; })()"
    )
    page.click("#filter-strong")
    page.click("#filter-strong")
    page.wait("window.answers === 1")
    page.value("new Promise((done) => setTimeout(() => done(0), 100))")
    assert "Choose what to look for" in str(page.value("document.querySelector('main').textContent"))
    assert page.complaints() == []


def test_two_runs_of_one_seed_part_at_a_turn_and_a_token(opened: Page) -> None:
    page = opened
    page.wait("document.querySelectorAll('.runs tbody tr').length === 2")
    for number in (1, 2):
        page.click(f".runs tbody tr:nth-child({number}) input")
    page.wait("document.querySelector('a[href^=\"#/pair/\"]')")
    page.value("document.querySelector('a[href^=\"#/pair/\"]').click()")
    page.wait("document.getElementById('main').dataset.place === 'pair'")
    assert "4 games of both: 1 won by" in page.text("main")
    assert "1 by both" not in page.text("main")
    assert page.texts("tbody a") == ["game-1", "game-2"]
    page.value("document.querySelector('tbody a').click()")
    page.wait("document.querySelector('.parting')")
    assert "They part at turn 1" in page.text(".parting")
    said = page.text(".parting")
    assert "The token at place 4 is another (114, 214)" in said
    assert '" shelf" in one and " drawer" in the other' in said
    assert page.texts("mark") == [" shelf", " drawer"]
    assert len(page.texts(".turn")) == 2
    found = page.value("location.hash").replace(
        "eval/2/valid_unseen/valid_unseen%2Fgame-1", "train/0/train/train%2Fgame-0"
    )
    page.go(found.partition("?")[0])
    page.wait("document.querySelector('.token.differs')")
    assert 'The token at place 4 is " shelf" in one and " drawer" in the other' in page.text(".parting")
    assert page.texts(".token.differs") == [" shelf", " drawer"]
    assert page.complaints() == []


def test_one_file_asks_nobody_for_anything(page: Page, runs: Path, tmp_path: Path) -> None:
    text, _ = one_file(Answers(Library([runs])), None)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page.open((tmp_path / "page.html").as_uri())
    open_run(page, "opd")
    page.wait("document.querySelectorAll('.plot canvas').length >= 4")
    asked = [one for one in page.requests() if not one.startswith(("data:", "about:"))]
    assert asked == [(tmp_path / "page.html").as_uri()]


def test_without_the_token_the_page_says_what_to_open(page: Page, address: str, tmp_path: Path) -> None:
    with browser(tmp_path) as stranger:
        stranger.open(address.partition("#")[0])
        stranger.wait("document.body.textContent.includes('Open the address that the terminal shows')")


def test_a_run_that_goes_on_is_followed(page: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "sage_opd", ends=False)
    make_run(tmp_path / "runs", "opd")
    (damaged,) = [p for p in (tmp_path / "runs").glob("*/attempt_1") if p != run.path]
    (damaged / "run.json").write_text("{")
    with served(tmp_path / "runs") as address:
        page.open(address)
        page.wait("[...document.querySelectorAll('.runs .state')].some((s) => s.textContent === 'running')")
        assert "is cut or no JSON" in page.text(".runs .notes")
        assert "2/2" in page.text(".runs")
        tables = Tables(run.path)
        key = RunKey(run.path.parent.name, "sage_opd", "alfworld", "generated", 0)
        record_step(tables, key, "sage_opd", 3)
        run.beat(step=3)
        page.wait("document.querySelector('.runs').textContent.includes('3/2')")
        page.go(f"#/run/{run.path.parent.name}.1")
        page.wait("document.getElementById('main').dataset.place === 'run'")
        record_evaluation(tables, key, "sage_opd", 3)
        page.wait("document.getElementById('moment').textContent.includes('valid_unseen after 3 steps')")
        tables.consolidate()
        run.done(step=3)
        page.wait("document.querySelector('main .state').textContent === 'done'")
    page.wait("document.getElementById('pulse').textContent.includes('does not answer')")


def test_an_open_episode_is_kept_up_to_date_and_its_reader_where_he_was(page: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "sage_opd", ends=False)
    tables, key = Tables(run.path), RunKey(run.path.parent.name, "sage_opd", "alfworld", "generated", 0)
    with served(tmp_path / "runs") as address:
        page.open(address)
        page.go(f"#/episode/{run.path.parent.name}.1/eval/0/valid_unseen/valid_unseen%2Fgame-1/0")
        page.wait("document.getElementById('main').dataset.place === 'episode'")
        assert "The run goes on: step 2 of 2" in page.text("main")
        assert page.texts("select[aria-label]") == []
        page.press("End")
        page.value("document.querySelector('.strip').dataset.mine = 'kept'")
        record_step(tables, key, "sage_opd", 3)
        run.beat(step=3)
        page.wait("document.querySelector('main').textContent.includes('The run goes on: step 3 of 2')")
        make_run(tmp_path / "runs", "opd")
        page.wait("document.querySelector('select[aria-label]')")
        assert "opd" in page.text("select[aria-label]")
        assert page.value("document.querySelector('.strip').dataset.mine") == "kept"
        assert page.text(".turn h2").startswith("Turn 2")
        record_evaluation(tables, key, "sage_opd", 0, ["What is said now."])
        page.wait("document.querySelector('.said').textContent === 'What is said now.'")
        assert page.text(".turn h2").startswith("Turn 2")
        assert "turn=2" in page.value("location.hash")
        run.done(step=3)
        page.wait("!document.querySelector('main').textContent.includes('The run goes on')")
    assert page.complaints() == []


@pytest.mark.parametrize("how", ["server", "file"])
def test_hostile_text_in_every_field_is_shown_and_never_run(how: str, page: Page, tmp_path: Path) -> None:
    texts = tuple(text.replace("\x00", "") for text in HOSTILE)
    for method in ("opd", "sage_opd"):
        run = make_run(tmp_path / "runs", method, said=texts)
        data = json.loads((run.path / "run.json").read_text())
        data["fields"] |= {"name": texts[3], "method": texts[0], "seed": texts[4]}
        data["fields"]["env"]["name"] = texts[5]
        (run.path / "run.json").write_text(json.dumps(data))
        status = json.loads((run.path / "status.json").read_text())
        (run.path / "status.json").write_text(json.dumps(status | {"reason": texts[1], "phase": texts[3]}))
    if how == "file":
        text, _ = one_file(Answers(Library([tmp_path / "runs"])), None)
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        page.open((tmp_path / "page.html").as_uri())
        walk(page, texts)
    else:
        with served(tmp_path / "runs") as address:
            page.open(address)
            walk(page, texts)


def walk(page: Page, texts: tuple[str, ...]) -> None:
    """Through every kind of page; nothing of the texts has become an element, a handler or a script."""
    page.wait("document.querySelectorAll('.runs tbody tr').length === 2")
    keys = page.value(
        "[...document.querySelectorAll('.runs a')].map((a) => a.getAttribute('href').split('/')[2])"
    )
    assert "<img src=x onerror" in page.text(".runs")
    page.go(f"#/run/{keys[0]}?filters=strong")
    page.wait("document.querySelectorAll('td .chip').length > 0")
    innocent(page)
    page.value("document.querySelector('td .chip').closest('tr').querySelector('a').click()")
    page.wait("document.getElementById('main').dataset.place === 'episode'")
    seen = set()
    for _ in range(3):
        seen |= set(page.texts(".said"))
        page.press("ArrowRight")
        innocent(page)
    shown = "\n".join(seen)
    assert sum(text in shown for text in texts) >= 6
    place = page.value("location.hash").partition("?")[0].removeprefix("#/episode/").split("/", 1)[1]
    page.go(f"#/pair/{keys[0]}/{keys[1]}")
    innocent(page)
    page.go(f"#/pair/{keys[0]}/{keys[1]}/{place}")
    page.wait("document.querySelector('.parting')")
    innocent(page)
    page.go("#/run/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    innocent(page)
    assert [one for one in page.complaints() if "404" not in one] == []


def innocent(page: Page) -> None:
    """Nothing but the page's own elements stands on it."""
    assert page.value("document.title") != "OWNED"
    assert page.value("document.documentElement.dataset.owned ?? ''") == ""
    assert (
        page.value(
            "document.querySelectorAll('main img, main script, main svg[onload], main b, main i').length"
        )
        == 0
    )
    attributes = "[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes])"
    assert page.value(f"{attributes}.filter((a) => a.name.startsWith('on')).length") == 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1400, 420])
def test_nothing_is_wider_than_the_window(page: Page, address: str, width: int, dark: bool) -> None:
    page.resize(width, 900, dark)
    try:
        page.open(address)
        page.wait("document.querySelectorAll('.runs tbody tr').length === 2")
        fits(page, width)
        open_run(page, "sage_opd")
        fits(page, width)
        open_trained(page)
        page.value("document.querySelectorAll('.token')[7].focus()")
        fits(page, width)
        low = page.value(CONTRAST)
        assert low == []
    finally:
        page.resize(1400, 900)


def fits(page: Page, width: int) -> None:
    assert page.value("document.documentElement.scrollWidth") <= width


CONTRAST = """
(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  } return [255, 255, 255]; };
  return [...document.querySelectorAll('main *')]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => !e.disabled && e.checkVisibility()).map((e) => {
      const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className, e.textContent.slice(0, 30)];
    }).filter(([ratio]) => ratio < 4.5);
})()
"""
"""Texts whose contrast is below WCAG 2.1's 4.5 to 1."""

"""The report in a real browser: whatever the agents and their worlds have said is text and nothing else."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis.cli import main
from analysis.report.reader import as_json
from tests.analysis.synthetic import Study, write_study
from tests.browser.chromium import dom

pytestmark = pytest.mark.browser

ATTACK = "document.title='OWNED';document.documentElement.dataset.owned='1'"
HOSTILE = (
    f"</script><script>{ATTACK}</script>",
    f"<!--<script>{ATTACK}",
    f"--><script>{ATTACK}</script><!--",
    f'<img src=x onerror="{ATTACK}">',
    f'"\'><svg onload="{ATTACK}">',
    f"]]><script>{ATTACK}</script>",
    f"</title></style></textarea><script>{ATTACK}</script>",
    "\u2028\u2029\x00\x07\x1b[31m \\u003c/script>",
    "&lt;b&gt; &amp; \\\\ ${1+1} {{7*7}} `x` $x^2",
)


class Page(HTMLParser):
    """The title, the JSON blocks, the inline handlers and the reader's texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.blocks, self.handlers, self.texts = "", {}, [], []
        self._inside: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.handlers += [name for name in attributes if name.startswith("on") or name == "data-owned"]
        self._inside.append((tag, attributes.get("id") or attributes.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, name = self._inside[-1] if self._inside else ("", "")
        if tag == "title":
            self.title += data
        elif tag == "script" and name:
            self.blocks[name] = self.blocks.get(name, "") + data
        elif tag == "dd":
            self.texts.append(data)


def hostile_study(root: Path) -> Path:
    """A study of two methods whose turns hold every hostile text in every field that a page shows."""
    runs = write_study(root, Study({"opd": 0.0, "sage_opd": 0.4}))
    for file in runs.rglob("turns.parquet"):
        table = pd.read_parquet(file)
        for offset, name in enumerate(("observation", "thought", "action", "feedback", "judge_reply")):
            table[name] = [HOSTILE[(i + offset) % len(HOSTILE)] for i in range(len(table))]
        table.to_parquet(file, index=False)
    return runs


def test_hostile_text_is_shown_and_never_run(tmp_path: Path) -> None:
    runs, out = hostile_study(tmp_path / "runs"), tmp_path / "report"
    assert main(["report", str(runs), "--baseline", "opd", "--out", str(out), "--draws", "100"]) == 0
    page = Page()
    page.feed(dom(out / "report.html", tmp_path / "profile"))
    assert "OWNED" not in page.title
    assert page.handlers == []
    # The page's own data is whole and is what was recorded; the reader has shown an episode of it.
    episodes = json.loads(page.blocks["episodes"])
    shown = {turn["observation"] for episode in episodes for turn in episode["turns"]}
    assert shown == set(HOSTILE)
    assert any(ATTACK in text for text in page.texts)


def test_the_browser_would_have_run_it(tmp_path: Path) -> None:
    """The same attack in a page that does not escape: what the test above looks for does happen."""
    file = tmp_path / "naive.html"
    file.write_text(f'<title>x</title><script type="application/json">"{HOSTILE[0]}"</script>')
    page = Page()
    page.feed(dom(file, tmp_path / "profile"))
    assert page.title == "OWNED"
    assert "data-owned" in page.handlers


def test_data_in_the_page_reads_back_as_it_was(tmp_path: Path) -> None:
    data = {"text": [*HOSTILE, "\ud800 half", "é漢😀"]}
    file = tmp_path / "data.html"
    script = "document.title = JSON.stringify(JSON.parse(document.getElementById('d').textContent)) === "
    file.write_text(
        f'<meta charset="utf-8"><script type="application/json" id="d">{as_json(data)}</script>'
        f"<script>{script}JSON.stringify({as_json(data)}) ? 'same' : 'other'</script>",
        encoding="utf-8",
    )
    page = Page()
    page.feed(dom(file, tmp_path / "profile"))
    assert page.title == "same"


MEASURE = """<script>addEventListener("load", () => {
  const bottom = (query) => document.querySelector(query).getBoundingClientRect().bottom;
  const widths = (query) => [...document.querySelectorAll(query)].map((e) => e.getBoundingClientRect().width);
  const said = {verdict: bottom("p.verdict"), facts: bottom("dl.facts"), width: innerWidth,
    wide: document.documentElement.scrollWidth,
    figure: Math.min(...widths("figure svg")), table: Math.max(...widths(".scroll"))};
  parent.postMessage(JSON.stringify(said), "*");
});</script>"""
FRAME = """<title>none</title><iframe src="{page}" style="border:0;width:{width}px;height:900px"></iframe>
<script>addEventListener("message", (e) => document.title = e.data)</script>"""


@pytest.mark.parametrize("width", [1400, 420])
def test_verdict_and_facts_are_seen_without_scrolling(tmp_path: Path, width: int) -> None:
    """Of five methods on two splits, at the width of a screen and of a telephone; pictures are as wide as
    tables, and nothing but tables and pictures scrolls sideways."""
    study = Study({name: 0.2 * i for i, name in enumerate(("opd", "a", "b", "c", "sage_opd"))}, games=8)
    runs, out = write_study(tmp_path / "runs", study), tmp_path / "report"
    assert main(["report", str(runs), "--baseline", "opd", "--out", str(out), "--draws", "100"]) == 0
    whole = (out / "report.html").read_text(encoding="utf-8")
    (out / "measured.html").write_text(whole.replace("</main>", f"{MEASURE}</main>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(page=(out / "measured.html").as_uri(), width=width), encoding="utf-8")
    page = Page()
    page.feed(dom(frame, tmp_path / "profile"))
    found = json.loads(page.title)
    assert found["width"] == width
    assert found["verdict"] < 200
    assert found["facts"] < 500
    assert found["wide"] <= width
    if width == 1400:
        assert found["figure"] == pytest.approx(found["table"], rel=0.02)

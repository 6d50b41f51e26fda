"""The page in one file: whole, inert, and refused where it would be cut."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sage.errors import ConfigError
from sage.view.answers import Answers
from sage.view.cli import main
from sage.view.export import one_file
from sage.view.library import Library
from sage.view.page import MODULES, as_inert_json, bundle
from tests.view.made import GAMES, make_run

HOSTILE = (
    "</script><script>document.title='OWNED'</script>",
    "<!--<script>",
    "--><b onclick=x>",
    "]]>\u2028\u2029\x00\x1b[31m",
    "&lt;b&gt; \\u003c/script> ${1} `x`",
)


class Parts(HTMLParser):
    """The scripts and styles of a page, by id or type, and its policy."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.styles: list[str] = []
        self.policy, self.handlers, self._now = "", [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.handlers += [name for name in found if name.startswith("on") or name == "style"]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        self._now = found.get("id") or found.get("type") or "plain" if tag == "script" else tag

    def handle_endtag(self, tag: str) -> None:
        self._now = ""

    def handle_data(self, data: str) -> None:
        if self._now == "style":
            self.styles.append(data)
        elif self._now in ("records", "filters", "module", "plain"):
            self.scripts[self._now] = self.scripts.get(self._now, "") + data


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_file_holds_what_the_server_would_answer(answers: Answers, keys: dict[str, str]) -> None:
    page, said = one_file(answers, None)
    assert said.startswith(f"{2 * (2 * GAMES + 4)} episodes of 2 runs")
    records = json.loads(Parts(page).scripts["records"])
    assert [run["key"] for run in records["runs"]["runs"]] == [run["key"] for run in answers.runs()["runs"]]
    key = keys["sage_opd"]
    assert records["episodes"][key] == json.loads(json.dumps(answers.episodes(key, {})["rows"]))
    for row in records["episodes"][key]:
        place = {name: row[name] for name in ("phase", "step", "split", "task", "rollout")}
        inside = records["episode"][key][json.dumps(list(place.values()), separators=(",", ":"))]
        assert inside == json.loads(json.dumps(answers.episode(key, place)))


def test_hostile_texts_stay_data(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "sage_opd", said=HOSTILE)
    page, _ = one_file(Answers(Library([tmp_path / "runs"])), None)
    parts = Parts(page)
    assert parts.handlers == []
    assert parts.scripts["module"] == bundle()
    assert all(digest(parts.scripts[name]) in parts.policy for name in ("plain", "module"))
    assert digest(parts.styles[0]) in parts.policy
    assert "unsafe" not in parts.policy
    records = json.loads(parts.scripts["records"])
    (episodes,) = records["episode"].values()
    observed = {turn["observation"] for one in episodes.values() for turn in one["turns"]}
    assert observed <= set(HOSTILE)


def test_json_inside_a_page_has_no_sign_that_ends_anything() -> None:
    text = as_inert_json({"a": list(HOSTILE)})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": list(HOSTILE)}


def test_modules_become_one_and_no_name_is_there_twice() -> None:
    text = bundle()
    assert not re.search(r"^(import|export)\b", text, re.MULTILINE)
    named = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
    assert len(named) == len(set(named)) > 40
    used = set(re.findall(r'from "\./([\w.]+)"', "".join(_source(name) for name in MODULES)))
    assert used <= set(MODULES)


def _source(name: str) -> str:
    import sage.view

    return (Path(sage.view.__file__).parent / "static" / name).read_text(encoding="utf-8")


def test_a_page_that_would_be_too_large_is_refused_and_fewer_episodes_are_said(answers: Answers) -> None:
    with pytest.raises(ConfigError, match=r"more than 0\.02 MB"):
        one_file(answers, None, most_mb=0.02)
    page, said = one_file(answers, 1)
    records = json.loads(Parts(page).scripts["records"])
    assert all(len(rows) == 4 for rows in records["episodes"].values())
    assert "16 further episodes are not in it" in said
    assert records["left_out"] in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "There is no folder 'nowhere'"),
        (["mlflow:nothing@sqlite:///DB"], "no MLflow experiment 'nothing'"),
        (["RUNS", "--out", "DIR/none/page.html"], "cannot be written"),
        (["--port", "70000"], "is no port"),
        (["--episodes", "0"], "is no number of episodes"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        w.replace("RUNS", str(runs)).replace("DIR", str(tmp_path)).replace("DB", f"{tmp_path}/m.db")
        for w in words
    ]
    try:
        code = main(given)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert sentence in capsys.readouterr().err


def test_the_page_is_written_without_torch_or_a_model(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    look = (
        "import sys; from sage.view.cli import main; code = main(sys.argv[1:]); "
        "print(code, [m for m in ('torch', 'transformers', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, str(runs), "--out", str(out)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "records" in Parts(out.read_text(encoding="utf-8")).scripts

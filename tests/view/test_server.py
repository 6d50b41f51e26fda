"""Who may ask the viewer, and what it says of itself to a browser."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from fastapi import FastAPI

from sage.errors import ConfigError
from sage.view.answers import Answers
from sage.view.cli import _listening
from sage.view.filters import FILTERS
from sage.view.page import FILES, MODULES
from sage.view.server import LARGEST, TOKEN, application, is_own_name, readable
from tests.view.asking import ask

SECRET = "a-token-of-this-test"
OURS = {TOKEN: SECRET}


@pytest.fixture
def app(answers: Answers) -> FastAPI:
    return application(answers, SECRET)


@pytest.mark.parametrize(
    "question", ["runs", "run?key=x", "episodes?key=x", "turns?key=x", "episode?key=x", "x"]
)
@pytest.mark.parametrize("given", [{}, {TOKEN: ""}, {TOKEN: SECRET[:-1]}, {TOKEN: b"\xe9\xff"}])
def test_without_the_token_no_record_is_told(
    app: FastAPI, question: str, given: dict[str, str | bytes]
) -> None:
    answer = ask(app, f"/api/{question}", headers=given)
    assert answer.status == 401
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "", "[::1", "10.0.0.1"]
)
def test_under_another_name_nothing_is_told(app: FastAPI, host: str) -> None:
    for path in ("/", "/api/runs", "/static/main.js"):
        assert ask(app, path, headers=OURS, host=host).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "[::1]:80"])
def test_a_forwarded_port_is_still_this_machine(host: str) -> None:
    assert is_own_name(host)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_only_read(app: FastAPI, method: str) -> None:
    assert ask(app, "/api/runs", headers=OURS, method=method).status == 405


def test_the_page_and_its_files_hold_no_record_and_fetch_nothing_from_elsewhere(app: FastAPI) -> None:
    page = ask(app, "/")
    assert page.status == 200
    named = set(re.findall(r'(?:src|href)="static/([^"]+)"', page.text))
    assert named <= set(FILES)
    assert "sage_opd" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"
    for name, kind in FILES.items():
        answer = ask(app, f"/static/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"] == kind
        if name in MODULES:
            assert "innerHTML" not in answer.text
            assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    for name in ("../server.py", "%2e%2e/server.py", "uplot.LICENSE", "server.py"):
        assert ask(app, f"/static/{name}").status == 404


def test_questions_are_answered(app: FastAPI, keys: dict[str, str]) -> None:
    found = ask(app, "/api/runs", headers=OURS).json()
    assert len(found["runs"]) == 2
    again = ask(app, "/api/runs", query={"since": found["version"]}, headers=OURS).json()
    assert again == {"version": found["version"], "same": True}
    key = keys["opd"]
    assert ask(app, "/api/run", query={"key": key}, headers=OURS).json()["method"] == "opd"
    rows = ask(
        app, "/api/episodes", query={"key": key, "phase": "eval", "step": 2, "won": "true"}, headers=OURS
    ).json()
    assert rows["total"] == 3
    place = {name: rows["rows"][0][name] for name in ("phase", "step", "split", "task", "rollout")}
    episode = ask(app, "/api/episode", query={"key": key, **place}, headers=OURS).json()
    assert len(episode["turns"]) == 3
    for name in FILTERS:
        answer = ask(app, "/api/turns", query={"key": key, "filters": name}, headers=OURS)
        assert answer.status == 200


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("run?key=nobody", 404),
        ("run?key=../../etc", 404),
        ("turns?key=KEY&filters=nonsense", 404),
        ("turns?key=KEY&limit=100000000", 422),
        ("episodes?key=KEY&offset=-1", 422),
        ("episode?key=KEY&phase=eval&step=2&split=valid_unseen&task=nothing&rollout=0", 404),
        ("episode?key=KEY&phase=eval&step=99999999999999999999999&split=v&task=t&rollout=0", 422),
        ("run", 422),
    ],
)
def test_a_question_that_cannot_be_answered_gets_a_sentence(
    app: FastAPI, keys: dict[str, str], question: str, status: int
) -> None:
    answer = ask(app, "/api/" + question.replace("KEY", keys["opd"]), headers=OURS)
    assert answer.status == status
    if status == 404:
        assert 0 < len(answer.json()["error"]) < 400


def test_a_page_gets_no_number_that_it_cannot_hold() -> None:
    data = {"a": [float("nan"), float("inf"), LARGEST + 1, -LARGEST - 1, LARGEST, True, None, 0.5]}
    assert readable(data) == {
        "a": [None, None, str(LARGEST + 1), str(-LARGEST - 1), LARGEST, True, None, 0.5]
    }


def test_the_command_serves_this_machine_alone_and_ends_at_ctrl_c(runs: Path) -> None:
    command = [sys.executable, "-m", "sage", "view", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        base, _, token = address.partition("#/open/")
        assert base.startswith("http://127.0.0.1:")
        assert len(token) >= 40
        for _ in range(100):
            try:
                found = json.load(urlopen(Request(f"{base}api/runs", headers={TOKEN: token})))
                break
            except URLError:  # not yet
                time.sleep(0.1)
        assert len(found["runs"]) == 2
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{base}api/runs")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 128 + signal.SIGINT


def test_the_port_stays_the_same_unless_somebody_else_is_there() -> None:
    with _listening(None) as first, _listening(None) as second:
        ports = {one.getsockname()[1] for one in (first, second)}
        assert len(ports) == 2
        assert {one.getsockname()[0] for one in (first, second)} == {"127.0.0.1"}
        with pytest.raises(ConfigError, match="cannot be used"):
            _listening(second.getsockname()[1])

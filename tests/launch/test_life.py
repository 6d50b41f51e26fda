"""A run that takes long says what it does: in status.json, in its log, on plain output, in the tables of runs
and in the viewer. The run is a real one whose games, judge and teacher wait."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sage.launch.table import _progress
from sage.records.reader import open_attempt
from sage.records.rundir import RunDir, parse_status
from sage.view.answers import Answers
from sage.view.library import Library

WORDS = [
    *("plugins=[tests.launch.slowed]", "budget=smoke", "tracking=none", "evaluation.limit=2"),
    *("trainer.steps=2", "trainer.tasks_per_step=2", "env.turn_budget=6", "evaluation.after=false"),
    *("evaluation.before=true", "evaluation.splits=[valid_seen]"),
    *("speed.judge_batch=1", "speed.micro_batch=1"),
]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sage", *WORDS],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def has_seen(folder: Path) -> None:
    """One more status was read; the run waits for it. (tests/launch/slowed.py must not be imported here.)"""
    with (folder / "seen").open("a") as file:
        file.write(".")


def attempt(folder: Path) -> Path | None:
    return next(folder.glob("runs/*/attempt_1"), None)


def shown(folder: Path) -> dict[str, Any]:
    """What the list of runs in the viewer has of it."""
    (run,) = Answers(Library([folder / "runs"])).runs()["runs"]
    return run


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Every status that the run had, what it printed, and the viewer's word on it in each phase."""
    folder = tmp_path_factory.mktemp("life")
    process = start(folder)
    seen: list[Mapping[str, Any]] = []
    viewed: dict[str, dict[str, Any]] = {}
    while process.poll() is None:
        time.sleep(0.02)
        path = attempt(folder)
        if path is None or not (path / "status.json").exists():
            continue
        status = json.loads((path / "status.json").read_text())  # whole at every moment
        if not seen or seen[-1] != status:
            seen.append(status)
            has_seen(folder)
        now = status["now"]
        if now and now["done"] and now["phase"] not in viewed:
            viewed[now["phase"]] = shown(folder)
    output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    path = attempt(folder)
    assert path is not None
    return SimpleNamespace(folder=path, seen=seen, viewed=viewed, output=output)


def test_status_says_the_phase_that_the_run_waits_in(watched: SimpleNamespace) -> None:
    phases = [status["phase"] for status in watched.seen if status["now"]]
    order = list(dict.fromkeys(phases))
    assert order[0].startswith(("setting up", "loading the student"))
    for phase in ("evaluation", "rollout", "judge", "teacher", "student"):
        assert phase in order
    assert order.index("rollout") < order.index("judge") < order.index("teacher") < order.index("student")
    assert any(phase.startswith("loading the student") for phase in order)


def test_inside_a_phase_it_counts_and_says_how_long(watched: SimpleNamespace) -> None:
    nows = [status["now"] for status in watched.seen if status["now"]]
    for phase, unit in (("rollout", "episodes"), ("judge", "queries"), ("teacher", "episodes")):
        told = [now for now in nows if now["phase"] == phase and now["step"] == 1 and now["total"]]
        assert {now["unit"] for now in told} == {unit}
        assert {now["done"] for now in told} > {0}
        assert all(now["done"] <= now["total"] for now in told)
        assert all(now["step_left_s"] is None for now in told)
        assert any(now["tokens_per_second"] for now in told)
        assert any(now["phase_left_s"] for now in told)
    rollout = [now for now in nows if now["phase"] == "rollout" and now["step"] == 1]
    assert len({now["turns"] for now in rollout}) > 3
    second = [now["step_left_s"] for now in nows if now["step"] == 2 and now["phase"] == "rollout"]
    assert all(left > 0 for left in second)


def test_a_run_that_has_ended_does_nothing(watched: SimpleNamespace) -> None:
    status = RunDir(watched.folder).status()
    assert status is not None
    assert (status.state, status.phase, status.now) == ("done", "", None)


def test_log_and_plain_output_say_it_where_nothing_else_is_said(watched: SimpleNamespace) -> None:
    log = (watched.folder / "log.txt").read_text()
    judging = r"step \d/2, judge for .*, \d+ of \d+ queries"
    for text in (log, watched.output):
        assert re.search(judging, text)
        assert re.search(r"\d+ of \d+ \w+, [\d,]+ tokens/s, about .* of it left", text)
        assert re.search(r"loading the student sage://tiny-student/alfworld for", text)
    stamps = [line[:19] for line in log.splitlines() if " for " in line[19:40]]
    assert max(stamps.count(one) for one in stamps) <= 3  # a "minute" is half a second here


def test_the_viewer_and_the_table_of_runs_show_it(watched: SimpleNamespace) -> None:
    judge = watched.viewed["judge"]
    assert (judge["state"], judge["phase"], judge["now"]["unit"]) == ("running", "judge", "queries")
    status = next(s for s in watched.seen if s["now"] and s["phase"] == "judge" and s["now"]["tokens"])
    row = SimpleNamespace(status=parse_status(status, watched.folder / "status.json"), outcome=None, pid=1)
    told = _progress(row)  # type: ignore[arg-type]
    assert re.fullmatch(r"0/2 judge \d+/\d+ queries, [\d,]+ tokens/s", told)
    assert shown(watched.folder.parents[2])["now"] is None


def test_a_killed_run_stays_readable_and_is_at_nothing(tmp_path: Path) -> None:
    process = start(tmp_path)
    try:
        ends = time.monotonic() + 300
        while time.monotonic() < ends and process.poll() is None:
            time.sleep(0.02)
            path = attempt(tmp_path)
            status = RunDir(path).status() if path else None
            if status is not None:
                has_seen(tmp_path)
                if status.phase == "judge":
                    break
    finally:
        process.kill()
        process.communicate()
    assert path is not None
    found = open_attempt(path)
    assert found.is_usable
    assert found.notes == []
    assert found.status is not None
    assert found.status.phase == "judge"  # where it was
    run = shown(tmp_path)
    assert (run["state"], run["now"]) == ("stopped", None)

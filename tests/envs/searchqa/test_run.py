"""Whole runs on SearchQA with the shipped models; a retrieval server that is killed in the middle of one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage.config.load import load
from sage.launch.execute import execute
from sage.records.rundir import RunDir
from sage.records.tables import read

SMALL = [
    "env=searchqa",
    "env.generated.train=12",
    "env.generated.evaluation=8",
    "env.generated.passages=60",
    "trainer.steps=2",
    "trainer.tasks_per_step=3",
    "speed.threads=1",
    "tracking.mlflow=false",
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "questions"))


def test_a_run_leaves_complete_records(tmp_path: Path) -> None:
    outcome = execute(load([*SMALL, f"launch.runs_dir={tmp_path}"]), export=False)
    assert outcome.state == "done", outcome.reason
    assert outcome.folder is not None
    folder = RunDir(outcome.folder)
    episodes = read(folder.path, "episodes").to_pylist()
    turns = read(folder.path, "turns").to_pylist()
    evaluated = [(e["step"], e["split"], e["task"]) for e in episodes if e["phase"] == "eval"]
    # Before and after, three sets, each question once.
    assert len(evaluated) == len(set(evaluated)) == 2 * 3 * 8
    assert {e["task_type"] for e in episodes} == {"1hop", "2hop", "3hop"}
    assert all(0 <= e["score"] <= 1 for e in episodes)
    assert all(e["score"] == 1 for e in episodes if e["won"])
    assert {t["failure"] for t in turns} <= {"none", "tool", "schema", "unparsed", "no_effect", "empty"}
    judged = [t for t in turns if t["phase"] == "train" and t["label"] in ("SKIP", "WEAK", "STRONG")]
    assert judged
    assert any(t["oracle"] == "progress" for t in turns)


def test_a_server_killed_in_the_middle_costs_its_episodes_and_nothing_else(tmp_path: Path, serve) -> None:
    """kill -9 after the first training step: the run stops with the first error, and what it had stays."""
    env = load(SMALL).env
    corpus = Path(env.tasks("train")[0].path.rpartition("#")[0]).with_name("corpus.jsonl")
    url, server = serve(corpus)
    runs = tmp_path / "runs"
    http = ["env.retriever=http", f"env.retrievers.http.url={url}", "env.retrievers.http.retries=1",
            "env.retrievers.http.wait_s=0"]
    command = [sys.executable, "-m", "sage", *SMALL, *http, "trainer.steps=10", f"launch.runs_dir={runs}"]
    run = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 300
        while not any(json.loads(path.read_text())["step"] for path in runs.glob("*/*/status.json")):
            assert run.poll() is None, run.stdout.read() if run.stdout else ""
            assert time.monotonic() < deadline, "no training step was ever made"
            time.sleep(0.05)
        server.send_signal(signal.SIGKILL)
        output, _ = run.communicate(timeout=300)
    finally:
        run.kill()
        run.wait()
    # Nobody who searched after the kill is a loss: the step in which nothing was left to judge ends the run.
    assert run.returncode == 1, output
    (file,) = runs.glob("*/*/status.json")
    folder, status = file.parent, json.loads(file.read_text())
    assert status["state"] == "failed"
    assert "not ok" in status["reason"]
    assert "gave no passages" in status["reason"]
    episodes = read(folder, "episodes").to_pylist()
    before = [e for e in episodes if e["phase"] == "eval"]
    assert {e["status"] for e in before} <= {"won", "lost", "turn_budget"}
    assert len(before) == 24
    assert not any(e["status"] == "policy_error" for e in episodes)
    broken = [e for e in episodes if e["status"] == "env_error"]
    assert all("gave no passages" in e["error"] and e["won"] is None for e in broken)
    assert list((folder / "set_aside").iterdir())  # the episodes of that step are kept, beside the tables

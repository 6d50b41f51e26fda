"""Two real models through the whole story: checked, two games played, one step, stopped, resumed, evaluated.

`nox -s real` runs it; SAGE_REAL_STUDENT and SAGE_REAL_TEACHER name the models: a folder each, or a GGUF file.
SAGE_REAL_OUT keeps the pages and the records; SAGE_REAL_DTYPE is the student's dtype (default: its group's).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage.records.tables import read

ROOT = Path(__file__).parents[2]
ROLES = ("student", "teacher")
GIVEN = {role: os.environ.get(f"SAGE_REAL_{role.upper()}", "") for role in ROLES}
LIMIT_S = 3600.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(GIVEN.values()),
        reason="needs SAGE_REAL_STUDENT and SAGE_REAL_TEACHER: a model's folder each, or a GGUF file in it",
    ),
]


def models() -> list[str]:
    """The overrides that name the pair: `student=hub student.path=… teacher=hub teacher.path=…` alone."""
    words = []
    for role, given in GIVEN.items():
        path = Path(given).expanduser().resolve()
        words += [f"{role}=hub", f"{role}.path={path.parent if path.is_file() else path}"]
        if path.is_file():
            words.append(f"{role}.gguf_file={path.name}")
    if dtype := os.environ.get("SAGE_REAL_DTYPE"):
        words.append(f"student.dtype={dtype}")
    return words


GAMES = [
    "env.games=generated",
    "env.generated.train=4",
    "env.generated.valid_seen=2",
    "env.generated.valid_unseen=2",
    "tracking=none",
]
RUN = [
    *("method=sage_opd", "prompt.style=react", "env.turn_budget=8"),
    *("trainer.steps=1", "trainer.tasks_per_step=2", "trainer.warmup_steps=0", "rollout.max_new_tokens=64"),
    *("evaluation.before=false", "evaluation.splits=[valid_unseen]", "evaluation.limit=1"),
]


def start(out: Path, log: str, *words: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])
    cache = {"SAGE_CACHE": str(out / "games"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    with (out / log).open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "sage", *words],
            cwd=out,
            env=os.environ | cache,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("SAGE_REAL_OUT")
    folder = Path(kept).resolve() if kept else tmp_path_factory.mktemp("real")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_page_refuses_nothing(out: Path) -> None:
    started = time.monotonic()
    code = start(out, "check.txt", "check", *models(), *GAMES).wait(LIMIT_S)
    page = (out / "check.txt").read_text(encoding="utf-8")
    print(page, f"\n{time.monotonic() - started:.0f} s with the start of the process")
    assert code == 0, page
    parts = ("Templates and context", "Numbers", "Engine", "Real turns", "Templates", "Judge", "A step")
    for heading in parts:
        assert f"\n{heading}\n" in page


def test_it_plays_learns_is_stopped_resumes_and_is_evaluated(out: Path) -> None:
    line = [*models(), *GAMES, *RUN, f"launch.runs_dir={out / 'runs'}"]
    first = start(out, "first.txt", *line)
    deadline = time.monotonic() + LIMIT_S
    while not list((out / "runs").glob("*/attempt_*/checkpoints/step-000001")):
        assert first.poll() is None, (out / "first.txt").read_text(encoding="utf-8")
        assert time.monotonic() < deadline, "no checkpoint within an hour"
        time.sleep(0.5)
    first.send_signal(signal.SIGTERM)
    assert first.wait(LIMIT_S) in (0, 128 + signal.SIGTERM)

    assert start(out, "second.txt", *line).wait(LIMIT_S) == 0, (out / "second.txt").read_text(
        encoding="utf-8"
    )
    (attempt,) = (out / "runs").glob("*/attempt_*")
    steps, episodes = read(attempt, "steps").to_pylist(), read(attempt, "episodes").to_pylist()
    turns = read(attempt, "turns").to_pylist()
    trained = [e for e in episodes if e["phase"] == "train"]
    evaluated = [e for e in episodes if e["phase"] == "eval"]
    assert len(trained) == 2
    assert all(e["ok"] for e in trained + evaluated)
    assert len(evaluated) == 1
    assert len(steps) == 1
    assert any(turn["action"] for turn in turns)
    print({name: round(value, 1) for name, value in steps[0].items() if name.startswith("seconds_")})

"""The canary: secrets planted in addresses, paths and the environment turn up nowhere in what is written.

Whole processes run, break and are refused in an empty folder; then every byte under it, and all they printed,
is searched. Servers are addresses of this machine at which nobody listens. The words are put together here,
so that the difference to the last commit (code.diff) does not hold them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sage.config.known import known_settings
from sage.config.load import load
from sage.config.schema import RunConfig

ROOT = Path(__file__).parents[1]
CANARY = "Canary" + "Yellow" * 2
IN_ENVIRONMENT = "Canary" + "Green" * 2
SPELLINGS = (
    f"http://me:{CANARY}@127.0.0.1:9/a?key={CANARY}",
    f"http://me:p@{CANARY}/x@127.0.0.1:9/a",
    f"http://{CANARY}@127.0.0.1:9/a",
)
SMALL = (
    *("env=searchqa", "env.generated.train=12", "env.generated.evaluation=4", "env.generated.passages=60"),
    *("trainer.steps=1", "trainer.tasks_per_step=2", "evaluation.limit=2", "speed.threads=1"),
)
HTTP = ("env.retriever=http", "env.retrievers.http.retries=1", "env.retrievers.http.wait_s=0")


def started(folder: Path, words: Sequence[str]) -> tuple[int, str]:
    """Exit code and all that a command printed; it runs in `folder` with secrets in its environment."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")]),
        "SAGE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "HF_TOKEN": IN_ENVIRONMENT,
        "MLFLOW_TRACKING_PASSWORD": IN_ENVIRONMENT,
        "AWS_SECRET_ACCESS_KEY": IN_ENVIRONMENT,
        "SOMEBODYS_API_KEY": IN_ENVIRONMENT,
        "DATABASE_URL": f"postgresql://me:{IN_ENVIRONMENT}@127.0.0.1:9/db",
    }
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    return done.returncode, done.stdout + done.stderr


def leaks(folder: Path, printed: str) -> list[str]:
    """Where a secret stands: files under `folder`, their names, and what was printed."""
    found = [f"printed: {line}" for line in printed.splitlines() if CANARY in line or IN_ENVIRONMENT in line]
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(word in str(path) or word.encode() in content for word in (CANARY, IN_ENVIRONMENT)):
            found.append(str(path))
    return found


def test_a_run_whose_servers_are_gone_ends_without_telling_their_secrets(tmp_path: Path) -> None:
    search, track = SPELLINGS[1:]
    words = ["sage", *SMALL, *HTTP, f"env.retrievers.http.url='{search}'", f"tracking.uri='{track}'"]
    code, printed = started(tmp_path, words)
    (log,) = tmp_path.glob("runs/*/attempt_1/log.txt")
    assert code in (0, 1), printed
    assert "127.0.0.1" in (log.parent / "config.yaml").read_text()
    more, unsent = started(tmp_path, ["sage", *SMALL, "seed=1", f"tracking.uri='{track}'"])
    assert more == 0
    assert "Not in MLflow" in unsent
    printed += unsent
    assert leaks(tmp_path, printed) == []
    # What is written names the run's folder, and both are for their owner's eyes.
    assert {path.stat().st_mode & 0o077 for path in [log, log.parent, *log.parent.glob("*.parquet")]} == {0}


def test_many_runs_and_the_commands_after_them_tell_no_secret(tmp_path: Path) -> None:
    address = SPELLINGS[0]
    tracked = f"tracking.uri='sqlite:///{tmp_path}/mlflow.db?key={CANARY}'"
    several = [*SMALL, *HTTP, f"env.retrievers.http.url='{address}'", "seed=0,1"]
    output = ""
    for words in (
        ["sage", "-m", *several, f"tracking.uri='{address}'"],
        ["sage", "list", *several, f"tracking.uri='{address}'"],
        ["sage", *SMALL, f"trainer.steps={CANARY}", f"tracking.uri='{address}'"],
        ["sage", *SMALL, "trainer.stepz=3", f"+tracking.url='{address}'"],
        ["sage", *SMALL, "--api-key", CANARY],
        ["sage", "-m", "sweep=confidence_threshold", f"hydra.sweeper.storage='{address}'"],
        ["analysis", "summary", "runs", "--metric", address],
        ["sage.records.mlflow.export", *(str(p) for p in tmp_path.glob("runs/*/*")), "--uri", address],
        ["sage", *SMALL, tracked, "seed=2"],
    ):
        output += started(tmp_path, words)[1]
    assert output
    assert leaks(tmp_path, output) == []


def places() -> list[str]:
    """Every setting that takes text and could so hold an address or a path."""
    config = load([*SMALL, *HTTP]).model_dump(mode="json")
    found = []
    for name in known_settings(RunConfig):
        value: object = config
        for part in name.split("."):
            value = value.get(part, 0) if isinstance(value, dict) else 0
        if value is None or isinstance(value, str):
            found.append(name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("setting", places())
def test_whatever_setting_holds_a_secret_tells_none(setting: str, tmp_path: Path) -> None:
    base = [word for word in (*SMALL, *HTTP, "tracking.mlflow=false") if not word.startswith(f"{setting}=")]
    _, printed = started(tmp_path, ["sage", *base, f"{setting}='{SPELLINGS[0]}'"])
    assert leaks(tmp_path, printed) == []

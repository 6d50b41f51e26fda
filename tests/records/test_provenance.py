"""Provenance: the code as it ran, and no secrets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sage.records import provenance


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    root = package.parent
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    return root


def test_a_clean_checkout(repository: Path) -> None:
    code, diff = provenance.code_state(repository / "package")
    assert (code["git"], code["dirty"], diff) == ("repository", False, "")
    assert len(code["commit"]) == 40


def test_what_a_run_itself_makes_does_not_make_a_checkout_dirty(repository: Path) -> None:
    for file in ("runs/ledger.jsonl", "runs/ab/attempt_1/config.yaml", "mlflow.db", "mlflow.db.lock",
                 "elsewhere/ledger.jsonl", "elsewhere/ab/attempt_1/code.diff", "report/report.html",
                 "report/tables/a.csv", "wandb/latest-run/a.wandb",
                 "wandb/run-1-a/files/config.yaml"):  # fmt: skip
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        (repository / file).write_text("x")
    code, diff = provenance.code_state(repository / "package")
    assert (code["dirty"], diff) == (False, "")
    (repository / "report.yaml").write_text("mine: 1\n")
    assert provenance.code_state(repository / "package")[0]["dirty"]


def test_a_dirty_checkout_can_be_rebuilt_from_commit_and_diff(repository: Path, tmp_path: Path) -> None:
    clean, _ = provenance.code_state(repository / "package")
    (repository / "package" / "__init__.py").write_text("one = 2\n")
    (repository / "package" / "new.py").write_text("two = 2\nthree = 3\n")
    (repository / ".env").write_text("TOKEN=hunter2\n")
    (repository / "notes.txt").write_text("hunter2\n")
    code, diff = provenance.code_state(repository / "package")
    assert code["dirty"]
    assert code["source_sha256"] != clean["source_sha256"]
    assert "hunter2" not in diff
    assert "# untracked, not included: notes.txt" in diff
    rebuilt = tmp_path / "rebuilt"
    subprocess.run(["git", "clone", "-q", str(repository), str(rebuilt)], check=True)
    (tmp_path / "code.diff").write_text(diff)
    subprocess.run(["git", "-C", str(rebuilt), "apply", str(tmp_path / "code.diff")], check=True)
    assert provenance.tree_digest(rebuilt / "package") == provenance.tree_digest(repository / "package")


def test_a_package_in_a_venv_inside_a_checkout_is_not_that_checkout(repository: Path) -> None:
    (repository / ".gitignore").write_text(".venv\n")
    installed = repository / ".venv" / "lib" / "site-packages" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    code, diff = provenance.code_state(installed)
    assert (code["git"], code["commit"], diff) == ("wheel", None, "")
    assert len(code["source_sha256"]) == 64


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code, diff = provenance.code_state(repository / "package")
    assert (code["git"], code["commit"], code["dirty"], diff) == ("none", None, None, "")


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    provenance.write(
        tmp_path,
        manifest_digest="m",
        models={"student": "s"},
        template_dates={"student": "2026-01-01"},
        command=["sage", "tracking.uri=http://me:hunter2@host", "--token", "hunter2", "seed=1"],
    )
    text = (tmp_path / "provenance.json").read_text()
    data = json.loads(text)
    assert "hunter2" not in text
    assert data["command"] == ["sage", "tracking.uri=http://***@host", "--token", "***", "seed=1"]
    assert data["environment"]["OMP_NUM_THREADS"] == "1"
    assert data["packages"]["pyarrow"]
    assert data["machine"]["cores"]
    assert data["manifest_digest"] == "m"
    assert data["template_dates"] == {"student": "2026-01-01"}
    assert (tmp_path / "code.diff").exists()

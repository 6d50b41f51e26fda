"""The command `sage` itself: its version, `sage analysis`, what a package has to bring with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sage import __version__
from sage.launch.completion import completed

ROOT = Path(__file__).parents[1]


def sage(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")]), **more}
    command = [sys.executable, "-m", "sage", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    done = sage("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sage-opd {__version__}\n", "")


def test_analysis_is_ours_and_not_a_file_of_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("raise SystemExit('not this one')\n")
    done = sage("analysis", "no-such-question", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("refused: ")
    assert "no-such-question" in done.stderr
    assert "not this one" not in done.stderr


def test_a_shell_is_told_what_goes_on_from_what_is_typed(tmp_path: Path) -> None:
    for typed, answer in (
        ("sage list method=sage_o", ["method=sage_opd"]),
        ("sage che", ["check"]),
        ("sage teacher st", ["start", "status", "stop"]),
        ("sage view ru", []),  # the shell has its own for files
    ):
        done = sage("-sc", "query=bash", cwd=tmp_path, COMP_LINE=typed)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, answer, ""), typed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "choices", "asked"),
    [
        ("sage trainer.st", [], "sage trainer.st"),
        ("sage ", [], "sage "),
        ("sage list", ["list"], "sage list"),
        ("sage list ", [], "sage "),
        ("sage check env=alfworld tr", [], "sage env=alfworld tr"),
        ("sage teacher start tea", [], "sage tea"),
        ("sage analysis rep", [], None),
        ("sage view runs ", [], None),
        ("sage method=opd ", [], "sage method=opd "),
        ("sage", [], "sage"),
    ],
)
def test_commands_are_taken_out_of_what_hydra_is_asked(
    typed: str, choices: list[str], asked: str | None
) -> None:
    assert completed(typed) == (choices, asked)


@pytest.mark.parametrize("package", ["sage", "analysis", "pretrain"])
def test_the_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_the_citation_names_the_newest_version_of_the_changelog() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\d+\.\d+\.\d+) \(", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest is not None
    assert (str(cited["version"]), cited["license"]) == (newest[1], "MIT")


def test_every_release_of_the_changelog_has_its_date_and_only_the_newest_may_wait() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"^## (.*)$", text, re.M)
    assert re.fullmatch(r"\d+\.\d+\.\d+ \((unreleased|\d{4}-\d\d-\d\d)\)", first)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", other) for other in others)


@pytest.mark.parametrize("line", ["view nowhere", "view --help", "analysis summary --help"])
def test_a_text_of_ours_holds_nothing_that_looks_like_a_secret(line: str, tmp_path: Path) -> None:
    done = sage(*line.split(), cwd=tmp_path)
    assert "mlflow:EXPERIMENT@<URI>" in done.stdout + done.stderr
    assert "***" not in done.stdout + done.stderr

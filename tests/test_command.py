"""The command `sage` itself: its version, `sage analysis`, what a package has to bring with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sage import __version__

ROOT = Path(__file__).parents[1]


def sage(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])}
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


@pytest.mark.parametrize("package", ["sage", "analysis"])
def test_the_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (str(cited["version"]), cited["license"]) == (__version__, "MIT")

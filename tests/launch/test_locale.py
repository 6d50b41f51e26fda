"""Locales that lack letters, and a working folder whose name has them: everything works as elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.launch.test_multirun import COMMON, ROOT, states
from tests.launch.test_takeover import wait_for

NAME = "\u00e9\u6f22"


def locale(name: str, tmp_path: Path) -> dict[str, str]:
    """The variables of a locale; Latin-1 is made where it can be."""
    plain = {word: value for word, value in os.environ.items() if word not in ("PYTHONIOENCODING", "LANG")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])
    plain |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": paths, "LC_ALL": "POSIX"}
    if name == "ASCII":
        return plain
    make = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US.ISO-8859-1")]
    try:
        subprocess.run(make, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Latin-1 locale can be made here")
    return plain | {"LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1"}


@pytest.mark.parametrize(("name", "encoding"), [("ASCII", b"ascii"), ("Latin-1", b"iso8859-1")])
def test_runs_lists_resumes_and_reports(name: str, encoding: bytes, tmp_path: Path) -> None:
    folder, environment = tmp_path / NAME, locale(name, tmp_path)
    folder.mkdir()

    def ended(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, timeout=500
        )
        told = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert done.returncode == 0, told
        assert "Traceback" not in told
        return told

    said = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.stdout.encoding, sys.getfilesystemencoding())"],
        env=environment,
        capture_output=True,
    )
    assert said.stdout.split() == [encoding, encoding]
    line: Sequence[str] = ("method=opd,sage_opd", "seed=0,1", "env.peak=0.5", *COMMON)
    assert "4 done" in ended("sage", "-m", *line)
    assert "4 done" in ended("sage", "list", *line)
    slow = ("sage", "seed=7", "env.nap_s=4", *COMMON)
    killed = subprocess.Popen([sys.executable, "-m", *slow], cwd=folder, env=environment)
    wait_for(lambda: any(s["phase"] == "nap" for s in states(folder).values()))
    killed.kill()
    killed.wait()
    ended(*slow)
    assert {(s["state"], s["pid"] == killed.pid) for s in states(folder).values()} == {("done", False)}
    assert len(list(folder.glob("runs/*/attempt_*"))) == 5
    assert "opd" in ended("analysis", "report", "runs", "--baseline", "opd", "--out", f"report_{NAME}")
    assert list(folder.glob("report_*/*.html"))
    # A path that no setting may hold unquoted is one sentence in any locale.
    refused = subprocess.run(
        [sys.executable, "-m", "sage", f"launch.runs_dir={folder}", *COMMON],
        cwd=folder,
        env=environment,
        capture_output=True,
    )
    assert refused.returncode == 2
    assert refused.stderr.count(b"\n") == 1
    ended("sage", f"launch.runs_dir='{folder}/{NAME}'", *COMMON)
    assert list(folder.glob(f"{NAME}/*/attempt_1/run.json"))

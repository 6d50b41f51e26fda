"""`python -m sage -m` with runs that are over in no time: skip-done, failures, tables, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTSIDE = ROOT / "tests" / "outside" / "conf"
COMMON = ["--config-dir", str(OUTSIDE), "plugins=[tests.outside.plugin]", "env=dummy", "tracking=none"]
TROUBLE = "+env.trouble={1: raise, 2: exit, 3: kill}"


def start(folder: Path, *arguments: str, program: Sequence[str] = ("-m", "sage")) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])}
    return subprocess.Popen(
        [sys.executable, *program, *arguments, *COMMON],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sage(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def states(folder: Path) -> dict[str, dict[str, object]]:
    """run id to the content of its latest attempt's status.json."""
    found = sorted(folder.glob("runs/*/attempt_*/status.json"))
    return {path.parts[-3]: json.loads(path.read_text()) for path in found}


def test_failures_stop_nobody_and_are_all_listed(tmp_path: Path) -> None:
    line = ("-m", "seed=0,1,2,3,4", "launch.workers=2", TROUBLE)
    code, out, err = sage(tmp_path, *line)
    assert (code, err) == (1, "")
    assert sorted(str(s["state"]) for s in states(tmp_path).values()) == ["done"] * 2 + ["failed"] * 3
    assert "5 runs: 2 done, 3 failed" in out
    failed = [text for text in out.splitlines() if text.startswith("FAILED")]
    assert [text.partition(" (its output")[0] for text in failed] == [
        "FAILED seed=1: RuntimeError: the run was told to raise",
        "FAILED seed=2: SystemExit: 7",
        "FAILED seed=3: its process was killed by signal 9",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}

    # The same line again repeats what failed and nothing else; its plan says so first.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/attempt_1/config.yaml")}
    code, plan, err = sage(tmp_path, "list", *line[1:])
    assert (code, err) == (0, "")
    assert "5 runs: 2 done, 3 failed; nothing was run." in plan
    code, out, _ = sage(tmp_path, *line)
    assert code == 1
    assert "2 skipped" in out
    assert "3 failed" in out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/attempt_*/config.yaml")}


def test_two_launchers_share_the_runs_and_each_says_what_the_other_did(tmp_path: Path) -> None:
    line = ("-m", "seed=0,1,2,3", "launch.workers=1")
    first = start(tmp_path, *line)
    second = start(tmp_path, *line)
    outs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert [str(s["state"]) for s in states(tmp_path).values()] == ["done"] * 4
    assert len(list(tmp_path.glob("runs/*/attempt_*"))) == 4
    assert "(absent)" not in outs[0] + outs[1]


def test_a_run_twice_in_one_line_runs_once(tmp_path: Path) -> None:
    code, _, _ = sage(tmp_path, "-m", "seed=0,0")
    assert code == 0
    assert len(list(tmp_path.glob("runs/*/attempt_*"))) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_ends_every_run_marked(tmp_path: Path, number: int) -> None:
    process = start(tmp_path, "-m", "seed=0,1,2", "launch.workers=2", "+env.trouble={0: hang, 1: hang}")
    deadline = time.monotonic() + 120
    while sum(s["phase"] == "nap" for s in states(tmp_path).values()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    ended = list(states(tmp_path).values())
    assert [(s["state"], s["reason"]) for s in ended] == [
        ("failed", f"stopped by {signal.Signals(number).name}")
    ] * 2
    for status in ended:
        with pytest.raises(ProcessLookupError):
            os.kill(int(str(status["pid"])), 0)
    assert "not started" in out
    assert "2 stopped" in out
    assert out.count("STOPPED seed=") == 2
    assert "failed" not in out.lower()


def test_a_single_run_is_marked_when_stopped_and_goes_on_in_its_attempt(tmp_path: Path) -> None:
    # A trouble is part of the identity, so the second line cures nothing: it is stopped again, in attempt 1.
    for _ in range(2):
        process = start(tmp_path, "+env.trouble={0: hang}")
        deadline = time.monotonic() + 120
        while [s["state"] for s in states(tmp_path).values()] != ["running"] and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 143
        assert [s["reason"] for s in states(tmp_path).values()] == ["stopped by SIGTERM"]
    assert len(list(tmp_path.glob("runs/*/attempt_*"))) == 1


def test_a_finished_single_run_is_not_repeated(tmp_path: Path) -> None:
    assert sage(tmp_path)[0] == 0
    code, out, _ = sage(tmp_path)
    assert code == 0
    assert out.startswith("Not started: done before (runs/")


def test_what_needs_no_weights_is_refused_once_before_any_run_starts(tmp_path: Path) -> None:
    """With the real story: a model folder that is there and cannot be used."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])}
    line = ["-m", "sage", "-m", "method=opd,sage_opd", "seed=0,1", f"student.path={model}", "tracking=none"]
    done = subprocess.run(
        [sys.executable, *line, "env.games=generated"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("Nothing was started: in the run ") == 1
    assert "holds no weights" in done.stderr
    assert list(tmp_path.glob("runs/*/*")) == []

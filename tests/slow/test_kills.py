"""A sweep killed with -9 twenty times, parent and children in turn, ends as an undisturbed one does; between
the kills its processes are suspended and continued, and where root may mount a disk, the disk fills up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sage.records.tables import read

ROOT = Path(__file__).parents[2]
SMALL = [
    *("trainer.steps=2", "trainer.warmup_steps=0", "trainer.tasks_per_step=2", "speed.checkpoint_every=1"),
    *("evaluation.splits=[valid_seen]", "evaluation.limit=2", "env.turn_budget=6", "speed.threads=1"),
]
LINE = ["-m", "method=opd,sage_opd", "seed=0,1,2", *SMALL]
KILLS = 20
FULL_DISKS = 3


def start(folder: Path, line: Sequence[str] = LINE) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])}
    with folder.with_suffix(".log").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "sage", *line], cwd=folder, env=environment, stdout=out, stderr=out
        )


def states(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("runs/*/attempt_*/status.json")):
        with suppress(ValueError):  # a full disk has it written in place
            found[path.parts[-3]] = json.loads(path.read_text())
    return found


def is_over(folder: Path) -> bool:
    known = states(folder)
    return len(known) == 6 and all(s["state"] == "done" for s in known.values())


def results(folder: Path) -> dict[str, Any]:
    """What each run found, without wall times."""
    found = {}
    for run in sorted(folder.glob("runs/*/attempt_*")):
        turns = read(run, "turns", ["phase", "step", "task", "turn", "answer", "label", "effective_weight"])
        steps = read(run, "steps", ["step", "loss", "z", "grad_norm", "student_tokens"])
        found[str(run.relative_to(folder))] = (
            sorted(map(str, turns.to_pylist())),
            sorted(map(str, steps.to_pylist())),
        )
    return found


def in_mlflow(folder: Path) -> list[tuple[str, str]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return sorted((run.data.tags["sage.run"], run.info.status) for run in runs)


def suspend_a_child(folder: Path, parent: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """SIGSTOP the process of a run, type the same line again beside it, and let it go on."""
    running = [s["pid"] for s in states(folder).values() if s["state"] == "running"]
    if not running or parent.poll() is not None:
        return False
    try:
        os.kill(running[0], signal.SIGSTOP)
        time.sleep(rng.uniform(0.0, 8.0))
        os.kill(running[0], signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def on_a_small_disk(folder: Path) -> Iterator[bool]:
    """`folder` as a disk of its own; False where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_the_disk(folder: Path, rng: random.Random) -> None:
    """Full to the last byte for some seconds; what runs then fails in one sentence."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**22, 2**12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\1" * size)
    time.sleep(rng.uniform(2.0, 8.0))
    filler.unlink()


def kill_a_child(folder: Path, parent: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """Kill -9 the process of a run some time after it is seen running; False where the sweep ended first."""
    while parent.poll() is None:
        running = [s["pid"] for s in states(folder).values() if s["state"] == "running"]
        if running:
            time.sleep(rng.uniform(0.0, 6.0))
            try:
                os.kill(running[0], signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_sweep_survives_twenty_kills(tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    assert start(calm).wait(timeout=1200) == 0
    with on_a_small_disk(stormy) as may_fill:
        _storm(stormy, calm, may_fill)


def _storm(stormy: Path, calm: Path, may_fill: bool) -> None:
    from mlflow.tracking import MlflowClient

    rng = random.Random(20)
    kills: list[str] = []
    suspended = filled = 0
    deadline = time.monotonic() + 2400
    while not is_over(stormy):
        assert time.monotonic() < deadline, stormy.with_suffix(".log").read_text()[-3000:]
        process = start(stormy)
        if may_fill and filled < FULL_DISKS and rng.random() < 0.4:
            time.sleep(rng.uniform(4.0, 12.0))
            fill_the_disk(stormy, rng)
            filled += 1
        while process.poll() is None and len(kills) < KILLS:
            suspended += rng.random() < 0.5 and suspend_a_child(stormy, process, rng)
            if len(kills) % 2 and kill_a_child(stormy, process, rng):
                kills.append("child")
            elif not len(kills) % 2:
                time.sleep(rng.uniform(2.0, 12.0))
                process.send_signal(signal.SIGKILL)
                kills.append("parent")
                break
        process.wait(timeout=1200)
    # The runs may have ended before the export did; the same line once more completes it.
    assert start(stormy).wait(timeout=600) == 0
    assert min(kills.count("parent"), kills.count("child")) >= 5, kills
    assert suspended >= 2
    assert filled or not may_fill
    assert "Traceback" not in "".join(p.read_text() for p in stormy.glob("runs/*/console.log"))

    assert results(stormy) == results(calm)
    assert len(in_mlflow(calm)) == 6
    assert in_mlflow(stormy) == in_mlflow(calm)

    # A power cut takes the exporter too: what it left half done is made up for by the same line.
    cut = next(stormy.glob("runs/*/attempt_*/mlflow.json"))
    left = json.loads(cut.read_text())
    MlflowClient(tracking_uri=f"sqlite:///{stormy / 'mlflow.db'}").delete_run(left["run_id"])
    cut.write_text(json.dumps(left | {"complete": False}))
    assert len(in_mlflow(stormy)) == 5
    assert start(stormy).wait(timeout=600) == 0
    assert in_mlflow(stormy) == in_mlflow(calm)

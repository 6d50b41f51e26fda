"""A sweep killed with -9 twenty times, parent and children in turn, ends as an undisturbed one does; between
the kills its processes are suspended and continued, the JVMs of its ScienceWorld runs are killed, and where
root may mount a disk, the disk fills up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from sage.records.tables import read

ROOT = Path(__file__).parents[2]
SMALL = [
    *("trainer.steps=6", "trainer.warmup_steps=0", "trainer.tasks_per_step=4", "speed.checkpoint_every=1"),
    *("evaluation.limit=4", "env.turn_budget=10", "speed.threads=1"),
]
LINE = ["-m", "env=alfworld,scienceworld", "seed=0,1", *SMALL]
RUNS = 4
AT_MOST = 12
"""Events in one run: more, and it would never get anywhere."""


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
    return len(known) == RUNS and all(s["state"] == "done" for s in known.values())


def turns_of(run: Path) -> list[str]:
    columns = ["phase", "step", "task", "turn", "answer", "feedback", "label", "effective_weight"]
    return sorted(map(str, read(run, "turns", columns).to_pylist()))


def results(folder: Path) -> dict[str, Any]:
    """What each run found, without wall times."""
    found = {}
    for run in sorted(folder.glob("runs/*/attempt_*")):
        steps = read(run, "steps", ["step", "loss", "z", "grad_norm", "student_tokens"])
        episodes = read(run, "episodes", ["phase", "step", "task", "status", "score"])
        rest = [sorted(map(str, table.to_pylist())) for table in (steps, episodes)]
        found[str(run.relative_to(folder))] = [turns_of(run), *rest]
    return found


def in_mlflow(folder: Path) -> list[tuple[str, str]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return sorted((run.data.tags["sage.run"], run.info.status) for run in runs)


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


def javas(pid: int) -> list[psutil.Process]:
    """The Java processes below a run's process."""
    with suppress(psutil.Error):
        return [p for p in psutil.Process(pid).children(recursive=True) if p.name().startswith("java")]
    return []


@dataclass
class Storm:
    """What befalls a sweep in `folder`, drawn from a seeded generator; `happened` counts it by kind."""

    folder: Path
    rng: random.Random
    left: Counter[str]
    happened: Counter[str] = field(default_factory=Counter)
    by_run: Counter[str] = field(default_factory=Counter)
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def over(self, parent: subprocess.Popen[bytes]) -> None:
        """Event after event until the sweep's parent has ended."""
        while parent.poll() is None:
            found = self._moment(parent)
            if found is None:
                return
            run, pid, java = found
            kinds = [kind for kind in self.left.elements() if "JVM" not in kind]
            of_the_jvm = [kind for kind in self.left.elements() if "JVM" in kind]
            # A JVM is rarer than the rest, so where there is one every second event is its.
            if java is not None and of_the_jvm and (not kinds or self.rng.random() < 0.5):
                kinds = of_the_jvm
            if not kinds:
                parent.wait(timeout=1200)
                return
            kind = self.rng.choice(kinds)
            victims = {"parent": parent.pid, "run": pid, "JVM": java.pid if java is not None else 0}
            with suppress(ProcessLookupError):
                self._befall(kind, victims)
                self.left[kind] -= 1
                self.happened[kind] += 1
                self.by_run[run] += 1
            if kind == "kill the parent":
                parent.wait(timeout=60)

    def _moment(self, parent: subprocess.Popen[bytes]) -> tuple[str, int, psutil.Process | None] | None:
        """A run that has got to a place that is drawn: (id, pid, its JVM); None where the sweep has ended."""
        training = ("rollout", "judge", "teacher", "student")
        anywhere: tuple[str, ...] = ()  # while it starts and exports, too, which are many phases in words
        phases = self.rng.choice([anywhere, ("evaluation", *training), training])
        while parent.poll() is None:
            for run, status in states(self.folder).items():
                if (
                    status["state"] == "running"
                    and (not phases or status["phase"] in phases)
                    and self.by_run[run] < AT_MOST
                    and psutil.pid_exists(status["pid"])
                ):
                    time.sleep(self.rng.uniform(0.0, 3.0))
                    machines = javas(status["pid"])
                    self.seen |= {java.pid: java for java in machines}
                    return run, status["pid"], machines[0] if machines else None
            time.sleep(0.1)
        return None

    def _befall(self, kind: str, victims: dict[str, int]) -> None:
        what, _, whom = kind.partition(" the ")
        if what == "kill":
            os.kill(victims[whom], signal.SIGKILL)
        elif what == "suspend":
            os.kill(victims[whom], signal.SIGSTOP)
            time.sleep(self.rng.uniform(0.0, 8.0))
            os.kill(victims[whom], signal.SIGCONT)
        else:
            self._fill_the_disk()

    def _fill_the_disk(self) -> None:
        """Full to the last byte for some seconds; what runs then fails in one sentence."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (2**22, 2**12, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"\1" * size)
        time.sleep(self.rng.uniform(2.0, 8.0))
        filler.unlink()


EVENTS = {
    "kill the parent": 10,
    "kill the run": 10,
    "kill the JVM": 6,
    "suspend the run": 3,
    "suspend the JVM": 2,
}


@pytest.mark.slow
def test_a_sweep_survives_twenty_kills(tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    assert start(calm).wait(timeout=1200) == 0
    with on_a_small_disk(stormy) as may_fill:
        storm = Storm(
            stormy, random.Random(20), Counter(EVENTS | {"fill the disk": 3} if may_fill else EVENTS)
        )
        deadline = time.monotonic() + 3000
        while not is_over(stormy):
            assert time.monotonic() < deadline, stormy.with_suffix(".log").read_text()[-3000:]
            process = start(stormy)
            storm.over(process)
            process.wait(timeout=1200)
        # The runs may have ended before the export did; the same line once more completes it.
        assert start(stormy).wait(timeout=600) == 0
        print(dict(storm.happened), dict(storm.by_run))
        assert results(stormy) == results(calm)
        assert len(in_mlflow(calm)) == RUNS
        assert in_mlflow(stormy) == in_mlflow(calm)
        _a_cut_export_is_made_up_for(stormy, calm)
        assert not psutil.wait_procs(list(storm.seen.values()), timeout=20)[1]
        _has_seen_all(storm, may_fill)


def _has_seen_all(storm: Storm, may_fill: bool) -> None:
    happened = storm.happened
    assert happened["kill the parent"] + happened["kill the run"] >= 16, happened
    assert min(happened["kill the parent"], happened["kill the run"]) >= 5, happened
    assert happened["kill the JVM"] >= 1, happened  # one lives for seconds; its own test kills two
    assert happened["suspend the run"] + happened["suspend the JVM"] >= 2, happened
    assert happened["fill the disk"] or not may_fill
    said = "".join(path.read_text() for path in storm.folder.glob("runs/*/console.log"))
    assert "Traceback" not in said
    # An episode whose JVM was killed is no data about the agent: it stands aside, with the machine's reason.
    for table in storm.folder.glob("runs/*/attempt_*/set_aside/*"):
        for episode in _aside(table):
            assert episode["status"] != "policy_error"
            assert episode["status"] != "env_error" or "ScienceWorld's JVM" in episode["error"]


def _aside(batch: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(batch / "episodes.parquet").to_pylist()


def _a_cut_export_is_made_up_for(stormy: Path, calm: Path) -> None:
    """A power cut takes the exporter too: what it left half done is made up for by the same line."""
    from mlflow.tracking import MlflowClient

    cut = next(stormy.glob("runs/*/attempt_*/mlflow.json"))
    left = json.loads(cut.read_text())
    MlflowClient(tracking_uri=f"sqlite:///{stormy / 'mlflow.db'}").delete_run(left["run_id"])
    cut.write_text(json.dumps(left | {"complete": False}))
    assert len(in_mlflow(stormy)) == RUNS - 1
    assert start(stormy).wait(timeout=600) == 0
    assert in_mlflow(stormy) == in_mlflow(calm)


PLAYS = [
    *("env=scienceworld", "method=base", "env.turn_budget=10", "evaluation.limit=12", "speed.slots=4"),
    *("speed.workers=2", "speed.threads=1", "tracking=none", "evaluation.max_not_ok=0.9"),
]


@pytest.mark.slow
def test_a_run_goes_on_beside_jvms_that_are_killed(tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    assert start(calm, PLAYS).wait(timeout=600) == 0
    process, killed = start(stormy, PLAYS), 0
    rng = random.Random(3)
    log = wait_for(lambda: next(stormy.glob("runs/*/attempt_1/log.txt"), None), process)
    wait_for(lambda: "test: opening" in log.read_text(), process)  # what is looked at beforehand is over
    while process.poll() is None and killed < 2:
        java = wait_for(lambda: next(iter(javas(process.pid)), None), process)
        time.sleep(rng.uniform(0.0, 2.0))
        with suppress(psutil.NoSuchProcess):
            java.kill()
            killed += 1
    assert process.wait(timeout=600) == 0, stormy.with_suffix(".log").read_text()
    assert killed
    (undisturbed,), (run,) = (list(place.glob("runs/*/attempt_1")) for place in (calm, stormy))
    episodes = read(run, "episodes").to_pylist()
    broken = {e["task"] for e in episodes if e["status"] == "env_error"}
    assert len(episodes) == 12
    assert all("ScienceWorld's JVM" in e["error"] for e in episodes if e["task"] in broken)
    assert {e["status"] for e in episodes} <= {"won", "lost", "turn_budget", "context_full", "env_error"}

    def whole(place: Path) -> list[str]:
        return [turn for turn in turns_of(place) if not any(f"'{task}'" in turn for task in broken)]

    assert whole(run) == whole(undisturbed)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes], seconds: float = 300.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found

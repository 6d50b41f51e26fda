"""`plugins: [tests.outside.plugin]`: one component of each group, and a run that is over in no time."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

from sage.config.registry import (
    confidences,
    curricula,
    divergences,
    environments,
    interventions,
    loggers,
    normalizations,
)
from sage.config.schema import RunConfig
from sage.envs.settings import EnvSettings
from sage.episode import Task
from sage.objective.confidence.base import Confidence
from sage.objective.divergence.base import Divergence
from sage.objective.intervention.base import Intervention
from sage.objective.normalization import Normalization
from sage.records.loggers.base import About, Destination, Logger, Point
from sage.records.rundir import RunDir
from sage.records.tables import Tables
from sage.training.curriculum import Curriculum


@environments.register("dummy")
class DummyEnv(EnvSettings):
    """An environment without games; `trouble` is what its run does, and `nap_s` how long it takes."""

    trouble: dict[int, str]
    """Seed to `raise`, `exit`, `kill` or `hang`."""
    nap_s: float
    dial: float
    """What a study may turn."""
    peak: float | None
    """The best `dial`; where set, the run records 20 games, of which fewer are won farther from it."""

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"{split}/0", "dummy", split, "none", "made up")]

    def manifest_digest(self, splits: Sequence[str]) -> str:
        return "-".join(splits)


@interventions.register("dummy")
class DummyIntervention(Intervention):
    """Does nothing."""


@confidences.register("dummy")
class DummyConfidence(Confidence):
    """Does nothing."""


@normalizations.register("dummy")
class DummyNormalization(Normalization):
    """Does nothing."""


@divergences.register("dummy")
class DummyDivergence(Divergence):
    """Does nothing."""


@curricula.register("dummy")
class DummyCurriculum(Curriculum):
    """Does nothing."""


@loggers.register("lines")
class Lines(Logger):
    """A file of JSON lines a run; it keeps what it holds and goes on behind it."""

    folder: str

    def open(self) -> Destination:
        return LinesFile(Path(self.folder))


class LinesFile(Destination):
    """One run's file: a line a point, and one at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, about: About) -> int:
        self._folder.mkdir(exist_ok=True)
        self._path = self._folder / f"{about.name}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in lines if json.loads(line).get("step", 0) <= about.held]
        self._path.write_text("".join(f"{line}\n" for line in kept))
        return about.held

    def send(self, points: Sequence[Point]) -> None:
        with self._path.open("a") as file:
            file.writelines(json.dumps(point._asdict()) + "\n" for point in points)

    def end(self, state: str, single: Sequence[Point]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"state": state}) + "\n")


def run(config: RunConfig, folder: RunDir, *, export: bool = True) -> None:
    """Stands in for `sage.run.run`: naps, fails as told, and reports a success of seed / 10."""
    env = config.env
    assert isinstance(env, DummyEnv)
    folder.log(f"threads {os.environ.get('OMP_NUM_THREADS')} export {export} pid {os.getpid()}")
    folder.beat(phase="nap", step=1)
    time.sleep(env.nap_s)
    match env.trouble.get(config.seed):
        case "raise":
            raise RuntimeError("the run was told to raise")
        case "exit":
            sys.exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
    if env.peak is not None:
        for split in config.evaluation.splits:
            run = folder.path.parent.name
            rows = [_game(config, run, split, i, i >= 20 * abs(env.dial - env.peak)) for i in range(20)]
            Tables(folder.path).append_evaluation(1, split, turns=[], episodes=rows)
        Tables(folder.path).consolidate()
    folder.done(success=config.seed / 10)


def _game(config: RunConfig, run: str, split: str, index: int, won: bool) -> dict[str, object]:
    who = {"run": run, "method": config.method, "env": "dummy", "source": "made up", "seed": config.seed}
    where = {
        "phase": "eval",
        "step": 1,
        "split": split,
        "task": f"{index:02d}",
        "task_type": "none",
        "rollout": 0,
    }
    return {**who, **where, "status": "won" if won else "lost", "ok": True, "won": won}


# A plugin may put another story in the place of ours; the runs of these tests then need no model. Never in
# the test process itself, where other tests run the real one.
if "pytest" not in sys.modules:
    sys.modules["sage.run"] = types.ModuleType("sage.run")
    sys.modules["sage.run"].run = run  # type: ignore[attr-defined]

"""Time left, by hand: prices from done runs, progress from status.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage.config.load import load
from sage.config.schema import RunConfig
from sage.launch.estimate import Prices, Work, prices, seconds_left
from sage.records.identity import Identity
from sage.records.rundir import RunStatus, new_attempt
from tests.launch.test_multirun import OUTSIDE, sage

GAMES = ["env.generated.train=12", "env.generated.valid_seen=6", "env.generated.valid_unseen=5"]
SIZES = ["trainer.steps=4", "trainer.tasks_per_step=3", "rollout.episodes_per_task=2"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))


def config_of(tmp_path: Path, *more: str) -> RunConfig:
    return load([*GAMES, *SIZES, "env.games=generated", f"launch.runs_dir={tmp_path}", *more])


def leave_done(tmp_path: Path, config: RunConfig, seconds: dict[str, float], games: int) -> None:
    run = new_attempt(tmp_path, Identity.of(config, "m"), config)
    run.start(steps=config.trainer.steps)
    run.done(step=config.trainer.steps, seconds=seconds)
    rates: list[dict[str, Any]] = [{"n": games, "rate": 0.5}]
    (run.path / "summary.json").write_text(json.dumps({"splits": [{"split": "valid_seen", "rates": rates}]}))


def test_what_a_run_has_to_do(tmp_path: Path) -> None:
    assert Work.of(config_of(tmp_path)) == Work(before=11, after=11, episodes=24)
    assert Work.of(config_of(tmp_path, "evaluation.limit=4", "evaluation.before=false")) == Work(0, 8, 24)
    during = ("evaluation.every=1", "evaluation.during_limit=1")
    assert Work.of(config_of(tmp_path, *during)) == Work(11, 11 + 3 * 2, 24)
    assert Work.of(config_of(tmp_path, "method=base")) == Work(11, 0, 0)


def test_prices_are_means_over_done_runs_like_it(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert prices(config) == Prices(None, None)
    spent = {"evaluation": 44.0, "rollout": 20.0, "student": 4.0}
    leave_done(tmp_path, config_of(tmp_path, "seed=1"), spent, 22)
    leave_done(tmp_path, config_of(tmp_path, "seed=2"), {"evaluation": 88.0, "rollout": 72.0}, 22)
    leave_done(tmp_path, config_of(tmp_path, "seed=3", "student.path=other"), {"evaluation": 1.0}, 22)
    assert prices(config) == Prices(pytest.approx(3.0), pytest.approx(2.0))


def test_the_time_that_is_left(tmp_path: Path) -> None:
    config, known, nothing = config_of(tmp_path), Prices(2.0, 1.0), Prices(None, None)
    assert seconds_left(config, None, known) == 22 * 2 + 24
    assert seconds_left(config, None, nothing) is None
    spent = {"evaluation": 33.0, "rollout": 36.0}
    half = RunStatus("running", phase="training", step=2, steps=4, seconds=spent)
    assert seconds_left(config, half, known) == 11 * 2 + 12
    assert seconds_left(config, half, nothing) == 11 * 3 + 12 * 3  # by what it has done itself
    early = RunStatus("running", phase="evaluation", step=0, steps=4, seconds={})
    assert seconds_left(config, early, known) == 22 * 2 + 24
    assert seconds_left(config, early, nothing) is None


def test_a_plan_says_so(tmp_path: Path) -> None:
    code, out, _ = sage(tmp_path, "list", "seed=0,1")
    assert code == 0
    assert "No run like these is done in runs" in out
    dummy = load([f"hydra.searchpath=[file://{OUTSIDE}]", "env=dummy", "plugins=[tests.outside.plugin]"])
    leave_done(tmp_path / "runs", dummy, {"evaluation": 2.0, "rollout": 256.0}, 2)
    code, out, _ = sage(tmp_path, "list", "seed=0,1,2", "launch.workers=2")
    # The done run was played on other games: it is none of the three. Each: 4 games, 256 episodes at 1 s.
    assert "About 6 min 30 s with launch.workers=2 for the 3 that are left, by runs like them in runs." in out

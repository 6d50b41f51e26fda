"""A small recorded run, made of real rows in real files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.config.load import load
from sage.config.schema import RunConfig
from sage.episode import Decision, Episode, Failure, Label, Status, Task, Turn, TurnScore
from sage.records import provenance
from sage.records.identity import Identity
from sage.records.rows import RunKey, episode_rows, label_shares, step_row
from sage.records.rundir import RunDir, new_attempt
from sage.records.summary import summarize
from sage.records.tables import Tables

KEY = RunKey(run="0123456789ab", method="sage_opd", env="alfworld", source="generated", seed=0)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What it gives once that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"Nothing after {seconds} s.")


def make_episode(name: str, split: str, status: Status = Status.WON, n_turns: int = 3) -> Episode:
    task = Task(id=name, env="alfworld", split=split, task_type="pick_and_place_simple", source="generated")
    turns = [
        Turn(
            index=t,
            message=f"Observation {t}",
            observation=f"You see {t}.",
            answer=f"> go to shelf {t}\n",
            answer_start=10 + 6 * t,
            answer_end=14 + 6 * t,
            action=f"go to shelf {t}",
            feedback="Nothing happens." if t == 1 else f"You arrive at shelf {t}.",
            admissible=("look", f"go to shelf {t}"),
            failure=Failure.NO_EFFECT if t == 1 else Failure.NONE,
            expert_distance_before=5 - t,
            expert_distance_after=5 - t if t == 1 else 4 - t,
        )
        for t in range(n_turns)
    ]
    return Episode(
        task=task,
        goal="put a mug in shelf.",
        scene="You are in the middle of a room.",
        token_ids=list(range(10 + 6 * n_turns)),
        turns=turns,
        status=status,
        score=float(status is Status.WON),
        error="" if status.is_ok else "The engine died.",
        seconds=0.5,
    )


def decide(turn: Turn) -> Decision:
    if turn.failure is not Failure.NONE:
        return Decision(Label.DET_FAIL, 1.0)
    label = Label.SKIP if turn.index == 0 else Label.WEAK
    return Decision(
        label, 0.0 if label is Label.SKIP else 0.5, reply=str(label), latency_s=0.1, judge_tokens=80
    )


def record_step(tables: Tables, step: int, won: int = 1, episodes: int = 4) -> None:
    """One optimizer step of `episodes` episodes, the first `won` of them won."""
    played = [
        make_episode(f"train-{step}-{e}", "train", Status.WON if e < won else Status.TURN_BUDGET)
        for e in range(episodes)
    ]
    decisions = [[decide(turn) for turn in episode.turns] for episode in played]
    scores = [
        [TurnScore(0.8, 0.8, 0.5, -0.4, student_logprob=-0.6, divergence=0.2) for _ in episode.turns]
        for episode in played
    ]
    turns, rows = episode_rows(KEY, played, phase="train", step=step - 1, decisions=decisions, scores=scores)
    row = step_row(
        KEY,
        step,
        loss=1 / step,
        stepped=True,
        z=1.5,
        episodes=episodes,
        episodes_not_ok=0,
        success_rate=won / episodes,
        seconds_rollout=1.0,
        seconds_judge=0.5,
        **label_shares(decisions),
    )
    tables.append_step(step, turns=turns, episodes=rows, row=row)


def record_evaluation(
    tables: Tables, step: int, split: str, won: int, n: int, not_ok: int = 0, full: int = 0
) -> None:
    """`n` ok episodes, of which `won` are won and `full` were cut by the context."""
    statuses = [Status.WON] * won + [Status.CONTEXT_FULL] * full + [Status.TURN_BUDGET] * (n - won - full)
    statuses += [Status.ENV_ERROR] * not_ok
    played = [make_episode(f"{split}-{i}", split, status) for i, status in enumerate(statuses)]
    turns, rows = episode_rows(KEY, played, phase="eval", step=step)
    tables.append_evaluation(step, split, turns=turns, episodes=rows)


def record_run(folder: Path, steps: int = 3) -> Tables:
    """Evaluation, `steps` steps, evaluation: 2 of 10 before, 6 of 10 after, one not ok."""
    tables = Tables(folder)
    tables.resume(0)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10)
    for step in range(1, steps + 1):
        record_step(tables, step)
    record_evaluation(tables, steps, "valid_unseen", won=6, n=10, not_ok=1)
    return tables


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="session")
def config() -> RunConfig:
    """The default config, but for fewer traces: they are the slow part of an export."""
    return load(["tracking.traces=1"])


@pytest.fixture
def run(tmp_path: Path, config: RunConfig) -> RunDir:
    """A fresh attempt."""
    return new_attempt(tmp_path / "runs", Identity.of(config, "f" * 64), config)


@pytest.fixture
def finished(run: RunDir) -> RunDir:
    """A complete run of three steps."""
    run.start(steps=3)
    provenance.write(run.path, manifest_digest="f" * 64, models={"student": "a" * 64})
    run.log("started")
    record_run(run.path).consolidate()
    run.write_json("summary.json", summarize(run.path).to_json())
    run.done(step=3)
    return run

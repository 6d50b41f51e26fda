"""Common random numbers: methods that start alike play alike, token for token, until their weights differ.

Real parts: generated games, the native engine, the shipped models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.load import load as load_records
from analysis.pair_agreement import agreement
from analysis.question import Question
from sage.config.load import load
from sage.launch.execute import execute
from sage.objective.intervention.base import Always
from sage.records.rundir import RunDir
from sage.records.tables import read
from tests.distill_run import JUDGE, train

SMALL = [
    "env.generated.train=8",
    "env.generated.valid_seen=4",
    "env.generated.valid_unseen=4",
    "env.games=generated",
    "env.turn_budget=5",
    "trainer.steps=2",
    "trainer.tasks_per_step=3",
    "trainer.learning_rate=0.01",  # so that the second step shows that weights differ
    "trainer.warmup_steps=0",
    "speed.threads=1",
    "evaluation.limit=3",
    "tracking.mlflow=false",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))
        others = (["method=sage_opd"], ["method=opd_two_rollouts", "speed.slots=2"], ["method=tcod_f2b"])
        for overrides in (["method=opd"], *others):
            outcome = execute(load([*SMALL, f"launch.runs_dir={folder}", *overrides]), export=False)
            assert outcome.state == "done", outcome.reason
    return folder


def played(runs: Path, method: str, phase: str, step: int) -> dict[Any, list[Any]]:
    """Every turn of a step that one rollout of each game has: what the student saw and wrote, and how likely
    each answer was to it."""
    rows = [
        row
        for folder in runs.glob("*/attempt_1")
        for row in read(RunDir(folder).path, "turns").to_pylist()
        if row["method"] == method
    ]
    turns = [r for r in rows if (r["phase"], r["step"], r["rollout"]) == (phase, step, 0)]
    key = ("split", "task", "turn")
    return {tuple(r[k] for k in key): [r["observation"], r["answer"], r["answer_tokens"]] for r in turns}


@pytest.mark.parametrize("other", ["sage_opd", "opd_two_rollouts"])
def test_methods_that_start_alike_play_the_same_first_step_and_evaluation(runs: Path, other: str):
    for phase in ("eval", "train"):
        mine, theirs = played(runs, "opd", phase, 0), played(runs, other, phase, 0)
        assert len(mine) > 6
        shared = set(mine) & set(theirs)
        assert shared == set(mine)  # a second rollout, other decisions and fewer slots change no draw
        assert {k: theirs[k] for k in shared} == mine


def test_a_curriculum_plays_the_first_turns_of_the_same_episodes(runs: Path):
    assert played(runs, "tcod_f2b", "eval", 0) == played(runs, "opd", "eval", 0)
    mine, short = played(runs, "opd", "train", 0), played(runs, "tcod_f2b", "train", 0)
    assert 0 < len(short) < len(mine)
    assert {key: mine[key] for key in short} == short


def test_the_pairs_command_shows_it_and_where_it_ends(runs: Path):
    frame = agreement(
        load_records([runs], tables=("episodes", "turns")), Question(methods=("opd", "sage_opd"))
    )
    first = frame[(frame["step"] == 0)]
    assert set(first["phase"]) == {"eval", "train"}
    assert (first["agreement"] == 1).all()
    assert (first["same_text"] == 1).all()
    assert (frame["no_pair"] == "").all()
    later = frame[(frame["step"] > 0)]
    assert (later["same_text"] < 1).any()  # trained apart, they part


def test_equal_weights_and_decisions_play_equal_token_ids(tmp_path: Path):
    """In memory, where ids are: the judge's rule and no rule at all."""

    def ids(rule: Any, name: str) -> list[list[list[int]]]:
        _, reports, _ = train(tmp_path / name, intervention=rule)
        return [[list(p.episode.token_ids) for p in report.batch] for report in reports]

    always, judged = ids(Always(name="always"), "a"), ids(JUDGE, "j")
    assert always[0] == judged[0]
    assert always[1:] != judged[1:]

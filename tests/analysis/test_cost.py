"""The table of costs, by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.errors import Refusal
from analysis.questions.cost import answer as tables
from analysis.records import Records


def step(
    method: str, run: str, student: int, scored: int, judged: int | None, seconds: float
) -> dict[str, object]:
    tokens = {"student_tokens": student, "teacher_tokens": scored, "judge_tokens": judged}
    return {"method": method, "env": "alfworld", "run": run, **tokens, "seconds_judge": seconds}


def records(*steps: dict[str, object]) -> Records:
    return Records(pd.DataFrame(), pd.DataFrame(), steps=pd.DataFrame(list(steps)))


def test_means_over_runs_by_hand() -> None:
    found = tables(
        records(
            step("sage_opd", "a", 10, 60, 40, 3.0),
            step("sage_opd", "a", 20, 80, None, 1.0),
            step("sage_opd", "b", 30, 100, 120, 2.0),
            step("opd", "c", 30, 100, 0, 0.0),
        )
    )
    cost = found["cost"].set_index("method")
    assert list(cost.index) == ["opd", "sage_opd"]  # the cheaper first
    row = cost.loc["sage_opd"]
    columns = ["runs", "steps", "student", "scored", "judged", "played"]
    assert row[columns].tolist() == [2, 1.5, 30, 120, 80, 0]
    # Runs of 180 and 220 teacher tokens.
    assert row["teacher"] == 200
    assert row["teacher_sd"] == pytest.approx(math.sqrt(800))
    assert math.isnan(cost.loc["opd", "teacher_sd"])
    runs = found["runs"].set_index("run")
    names = ["steps", "student", "scored", "judged", "teacher"]
    assert runs.loc["a", names].tolist() == [2, 30, 140, 40, 180]
    assert runs.loc["a", "seconds_judge"] == 4
    assert runs.loc["a", "judge_tokens_s"] == 10
    seconds = found["seconds"].set_index("method")
    assert seconds.loc["sage_opd", ["judge", "training", "per_step"]].tolist() == [3, 3, 2]


def test_runs_that_made_no_step_are_refused() -> None:
    with pytest.raises(Refusal, match="has made a training step"):
        tables(Records(pd.DataFrame(), pd.DataFrame()))

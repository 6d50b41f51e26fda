"""The ledger of tokens is the sum over the steps, by hand."""

from __future__ import annotations

from pathlib import Path

from sage.console import token_line
from sage.records.ledger import Ledger, ledger
from sage.records.summary import summarize

from .conftest import record_run

STEP = {
    "student_tokens": 100,
    "teacher_tokens": 600,
    "judge_tokens": 400,
    "teacher_play_tokens": None,
    "judge_queries": 5,
    "seconds_rollout": 2.0,
    "seconds_judge": 4.0,
    "seconds_teacher": 0.5,
    "seconds_student": 1.0,
    "seconds_other": 0.25,
}


def test_sums_and_speeds_by_hand() -> None:
    book = ledger([STEP, STEP | {"demonstration_tokens": 7, "teacher_play_tokens": 50, "judge_queries": 1}])
    assert book.tokens == {"student": 200, "demonstration": 7, "scored": 1200, "judged": 800, "played": 50}
    assert (book.teacher, book.queries) == (2050, 6)
    assert book.seconds == {"rollout": 4.0, "judge": 8.0, "teacher": 1.0, "student": 2.0, "other": 0.5}
    # 200 / 4, 800 / 8, 1200 / 1, 200 / 2
    assert book.tokens_per_second == {"rollout": 50, "judge": 100, "teacher": 1200, "student": 100}
    assert book.to_json()["tokens"]["teacher"] == 2050
    assert token_line(book) == (
        "Tokens of training: 200 of the student and 7 of demonstrations, 2,050 through the teacher "
        "(scored 1,200, judged 800, played 50)."
    )


def test_a_phase_without_work_or_time_has_no_speed() -> None:
    book = ledger([STEP | {"judge_tokens": 0, "seconds_teacher": 0.0}])
    assert set(book.tokens_per_second) == {"rollout", "student"}


def test_records_from_before_a_column_was_there_count_as_nothing() -> None:
    book = ledger([{"student_tokens": 3}])
    assert book.tokens == {"student": 3, "demonstration": 0, "scored": 0, "judged": 0, "played": 0}
    assert "0 through the teacher." in token_line(book)


def test_the_summary_has_it_once_there_was_a_step(folder: Path) -> None:
    assert summarize(folder).ledger is None
    record_run(folder)
    found = summarize(folder)
    assert isinstance(found.ledger, Ledger)
    assert found.to_json()["ledger"]["training_seconds"]["rollout"] == 3.0

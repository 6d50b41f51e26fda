"""What the phases of a training reached: sums and means worked by hand, and records without the columns."""

from __future__ import annotations

import io

from sage.console import print_summary
from sage.records.phase_speed import PhaseSpeed, phase_speeds
from sage.records.summary import Summary

STEPS = [
    {
        "student_tokens": 100,
        "judge_tokens": 0,
        "teacher_tokens": 600,
        "seconds_rollout": 2.0,
        "seconds_teacher": 1.0,
        "seconds_student": 4.0,
        "seconds_other": 9.0,
        "speed_peak_rollout": 3.0,
        "speed_peak_student": 5.5,
        "speed_matrix_teacher": 0.5,
        "speed_matrix_student": 0.25,
        "speed_memory_rollout": 0.10,
    },
    {
        "student_tokens": 300,
        "judge_tokens": 0,
        "teacher_tokens": 0,
        "seconds_rollout": 6.0,
        "seconds_teacher": 1.0,
        "seconds_student": 4.0,
        "speed_peak_rollout": 2.0,
        "speed_peak_student": 6.5,
        "speed_matrix_teacher": None,
        "speed_matrix_student": 0.75,
        "speed_memory_rollout": 0.30,
    },
]


def test_rates_are_of_sums_peaks_the_most_and_shares_weighed_by_seconds() -> None:
    rollout, teacher, student = phase_speeds(STEPS)
    assert rollout == PhaseSpeed("rollout", 8.0, 50.0, 3.0, None, (2 * 0.10 + 6 * 0.30) / 8)
    assert teacher == PhaseSpeed("teacher", 2.0, 300.0, None, 0.5, None)
    assert student == PhaseSpeed("student", 8.0, 50.0, 6.5, 0.5, None)


def test_older_records_have_tokens_and_seconds_alone() -> None:
    old = [{name: value for name, value in row.items() if "speed" not in name} for row in STEPS]
    assert [(s.tokens_per_second, s.peak_gib, s.matrix_share) for s in phase_speeds(old)] == [
        (50.0, None, None),
        (300.0, None, None),
        (50.0, None, None),
    ]
    assert phase_speeds([]) == ()


def test_the_end_of_a_run_shows_every_phase(tmp_path) -> None:  # type: ignore[no-untyped-def]
    summary = Summary("r", "m", "e", 0, 2, (), None, {}, 0, speed=phase_speeds(STEPS))
    stream = io.StringIO()
    print_summary(summary, tmp_path, stream=stream)
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert ["rollout", "8.0", "s", "50", "3.00", "25%"] in lines
    assert ["student", "8.0", "s", "50", "6.50", "50%"] in lines
    assert summary.to_json()["speed"][1]["phase"] == "teacher"

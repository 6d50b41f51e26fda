"""Phases find the clock that runs in their thread, and none in another."""

from __future__ import annotations

import contextvars
import threading
import time

import pytest

from sage.records.clock import PHASES, PhaseClock, phase, take_seconds


def test_a_phase_counts_on_the_clock_that_runs_however_deep() -> None:
    def scored() -> None:
        with phase("teacher"):
            time.sleep(0.02)

    with PhaseClock({"teacher": 5.0}).running() as clock:
        with phase("rollout"):
            scored()
        step = take_seconds()
    assert 0.02 <= step["teacher"] < 5
    assert clock.totals()["teacher"] >= 5.02
    assert step["rollout"] < 0.02


def test_without_a_clock_a_phase_counts_nothing_and_is_still_looked_at() -> None:
    with phase("teacher"):
        assert take_seconds() == dict.fromkeys(PHASES, 0.0)
    with pytest.raises(ValueError, match="is not a phase"), phase("lunch"):
        pass


def test_the_clock_before_runs_again_after_a_block() -> None:
    with PhaseClock().running() as outer:
        with PhaseClock().running() as inner, phase("judge"):
            time.sleep(0.02)
        with phase("judge"):
            time.sleep(0.02)
    assert min(inner.totals()["judge"], outer.totals()["judge"]) >= 0.02
    assert outer.totals()["judge"] < 0.04


@pytest.mark.parametrize("inherits", [False, True])
def test_what_another_thread_does_is_the_time_of_the_phase_it_runs_beside(inherits: bool) -> None:
    """`inherits`: the thread starts with the variables of the one that made it, as some Pythons have it."""

    def judge() -> None:
        with phase("judge"):
            time.sleep(0.05)

    with PhaseClock().running() as clock:
        context = contextvars.copy_context()
        thread = threading.Thread(target=(lambda: context.run(judge)) if inherits else judge)
        with phase("rollout"):
            thread.start()
            time.sleep(0.01)
            with phase("teacher"):
                thread.join()
    seconds = clock.totals()
    assert seconds["judge"] == 0
    assert seconds["rollout"] >= 0.01
    assert seconds["teacher"] >= 0.02

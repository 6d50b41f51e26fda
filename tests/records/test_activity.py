"""What a run says it is doing, by a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace

import pytest

from sage.records.activity import Activity, Now, counted_as, did, doing, expect, making_step
from sage.records.clock import PhaseClock, phase
from sage.records.pulse import SILENCE_S, EveryMinute, now_line


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def activity(time: Time) -> Iterator[Activity]:
    with Activity(time).running() as activity:
        yield activity


def known(now: Now | None) -> Now:
    assert now is not None
    return now


def test_nothing_is_said_where_nothing_is_done(activity: Activity) -> None:
    assert activity.now() is None
    with doing("loading the teacher"):
        assert known(activity.now()).phase == "loading the teacher"
    assert activity.now() is None


def test_where_no_activity_runs_nothing_breaks() -> None:
    with doing("loading"), making_step(1, 2), phase("judge"):
        expect(3, "queries")
        did(1, tokens=5)


def test_a_phase_of_the_clock_is_what_a_run_does(activity: Activity, time: Time) -> None:
    with PhaseClock().running(), making_step(3, 20), phase("rollout"):
        expect(8, "episodes", most_turns=10)
        time.now += 4
        did(turns=20, tokens=120)
        now = known(activity.now())
        assert (now.phase, now.step, now.steps, now.seconds) == ("rollout", 3, 20, 4.0)
        assert (now.done, now.total, now.turns, now.tokens_per_second) == (0, 8, 20, 30.0)
        # 60 of at most 80 turns are left, 5 a second.
        assert (now.phase_left_s, now.at_most, now.step_left_s) == (12.0, True, None)
        with phase("judge"):
            assert known(activity.now()).phase == "judge"


def test_the_next_rollout_is_as_long_as_the_last_one_was(activity: Activity, time: Time) -> None:
    for _ in range(2):
        with phase("rollout"):
            expect(2, "episodes", most_turns=10)
            time.now += 3
            did(turns=3)
            now = known(activity.now())
            did(2, turns=3)
    # 6 turns for 2 episodes the first time, so 3 of 6 are left after 3 of them in 3 seconds.
    assert (now.phase_left_s, now.at_most) == (3.0, False)


def test_time_left_counts_down_between_two_things_that_are_done(activity: Activity, time: Time) -> None:
    with phase("teacher"):
        expect(4, "episodes")
        left = []
        for _ in range(3):
            time.now += 10
            left.append(known(activity.now()).phase_left_s)
            if len(left) == 1:
                did(1)
                left.append(known(activity.now()).phase_left_s)
        assert left == [None, 30.0, 20.0, 20.0]  # 10 s each; the second one takes longer than that


def test_the_step_that_is_made_takes_as_long_as_those_before(activity: Activity, time: Time) -> None:
    def step(number: int, rollout: float, judge: float) -> Now:
        with making_step(number, 9):
            for name, seconds in (("rollout", rollout), ("judge", judge), ("teacher", 2), ("student", 3)):
                with phase(name):
                    expect(2, "episodes")
                    time.now += seconds / 2
                    did(1)
                    if name == "rollout":
                        in_rollout = known(activity.now())
                    time.now += seconds / 2
        return in_rollout

    assert step(1, 4, 6).step_left_s is None
    assert step(2, 4, 8).step_left_s == 2 + 6 + 2 + 3
    assert step(3, 4, 8).step_left_s == 2 + 7 + 2 + 3
    assert activity.now() is None


def test_a_phase_that_is_entered_again_in_a_step_goes_on_counting(activity: Activity, time: Time) -> None:
    with making_step(1, 1):
        with phase("teacher"):
            expect(2, "episodes")
        for _ in range(2):
            with phase("teacher"):
                time.now += 1
                did(1, tokens=10)
                now = known(activity.now())
            with phase("student"):
                time.now += 5
    assert (now.done, now.seconds, now.tokens_per_second) == (2, 2.0, 10.0)


def test_what_another_thread_does_is_counted_where_it_belongs(activity: Activity) -> None:
    def ahead() -> None:
        with counted_as("judge"):
            did(3, tokens=30)
        with doing("nothing that is seen"):
            assert known(activity.now()).phase == "rollout"

    with making_step(1, 1):
        with phase("rollout"):
            expect(1, "episodes", most_turns=5)
            thread = threading.Thread(target=copy_context().run, args=(ahead,))
            thread.start()
            thread.join()
            assert (known(activity.now()).done, known(activity.now()).tokens) == (0, 0)
        with phase("judge"):
            assert (known(activity.now()).done, known(activity.now()).tokens) == (3, 30)


def test_who_listens_hears_of_a_tick_as_long_as_it_listens(activity: Activity) -> None:
    heard: list[str] = []
    with activity.listening(lambda now: heard.append(now.phase)):
        activity.tell()
        with doing("exporting"), activity.ticking(0.001):
            while not heard:
                threading.Event().wait(0.001)
    count = len(heard)
    with doing("something else"):
        activity.tell()
    assert set(heard) == {"exporting"}
    assert len(heard) == count


def test_a_log_hears_of_it_a_line_a_minute_and_only_where_nothing_else_was_said(time: Time) -> None:
    lines: list[str] = []
    pulse = EveryMinute(lines.append, time_of=time)
    now = Now("judge", 5.0)
    for _ in range(int(10 * SILENCE_S)):
        time.now += 1
        pulse(now)
    assert len(lines) == 10
    for _ in range(int(10 * SILENCE_S)):
        time.now += 1
        pulse.spoken()
        pulse(now)
    assert len(lines) == 10


def test_the_line_says_what_is_known() -> None:
    now = Now("loading the teacher", 72.0)
    assert now_line(now) == "loading the teacher for 1 min 12 s"
    now = replace(now, phase="rollout", done=5, total=8, unit="episodes", turns=1210, step=3, steps=20)
    now = replace(now, tokens_per_second=213.6, phase_left_s=250.0, step_left_s=720.0)
    assert now_line(now) == (
        "step 3/20, rollout for 1 min 12 s, 5 of 8 episodes, 1,210 turns, 214 tokens/s, about 4 min 10 s of "
        "it left, about 12 min 00 s of the step left"
    )
    assert "at most 4 min 10 s of it left" in now_line(replace(now, at_most=True))
    assert "7 queries" in now_line(replace(now, done=7, total=None, unit="queries"))

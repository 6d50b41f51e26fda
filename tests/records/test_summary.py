"""The summary is a function of the tables; the clock's phases add up."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sage.episode import Status
from sage.records.clock import PHASES, PhaseClock
from sage.records.rows import episode_rows
from sage.records.summary import Rate, summarize
from sage.records.tables import Tables
from sage.records.trouble import bounds_lines, fallback_warning, retry_line, slip_line

from .conftest import KEY, make_episode, record_evaluation, record_run


def test_before_after_and_gain(folder: Path) -> None:
    record_run(folder)
    summary = summarize(folder)
    (split,) = summary.splits
    assert split.before is not None
    assert split.after is not None
    assert (split.before.won, split.before.n, split.after.won, split.after.n) == (2, 10, 6, 10)
    assert (split.after.step, split.after.not_ok, summary.not_ok) == (3, 1, 1)
    assert split.gain_points == pytest.approx(40)
    assert split.sources == ("generated",)
    assert summary.label_shares == pytest.approx({"SKIP": 1 / 3, "DET_FAIL": 1 / 3, "WEAK": 1 / 3})
    assert summary.seconds["rollout"] == 3.0
    assert summary.train is not None
    assert summary.train.n == 12
    assert json.loads(json.dumps(summary.to_json()))["splits"][0]["rates"][1]["rate"] == 0.6


def test_what_the_context_cut_is_ok_not_won_and_counted_apart(folder: Path) -> None:
    tables = Tables(folder)
    tables.resume(0)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10, not_ok=1, full=3)
    summary = summarize(folder)
    (rate,) = summary.splits[0].rates
    assert (rate.won, rate.n, rate.not_ok, rate.context_full) == (2, 10, 1, 3)
    assert summary.context_full == (3, 0)
    assert summary.to_json()["splits"][0]["rates"][0]["context_full"] == 3


def test_a_rate_with_broken_episodes_has_bounds(folder: Path) -> None:
    record_run(folder)
    summary = summarize(folder)
    after = summary.splits[0].after
    assert after is not None
    assert (after.won, after.n, after.not_ok) == (6, 10, 1)
    assert after.bounds == (6 / 11, 7 / 11)
    assert summary.to_json()["splits"][0]["rates"][1]["bounds"] == [6 / 11, 7 / 11]
    (line,) = bounds_lines(summary)
    assert line == (
        "valid_unseen after 3 steps: 1 of 11 not ok; "
        "54.5 % if those were all lost, 63.6 % if they were all won."
    )
    assert Rate(0, 0, 0, 0).bounds == (0, 1)


def test_format_slips_and_unreadable_replies_are_counted_where_they_can_be_known(folder: Path) -> None:
    tables = record_run(folder, steps=1)
    before = summarize(folder)
    assert slip_line(before) == ""  # nobody has said which commands were admissible
    assert before.to_json()["fallback_share"] == before.fallback / before.judged
    played = [make_episode(str(i), "test", Status.LOST) for i in range(3)]
    for episode, slipped in zip(played, (True, False, None), strict=True):
        for turn in episode.turns:
            turn.format_slip = slipped
        episode.retries = int(slipped or 0)
    turns, rows = episode_rows(KEY, played, phase="eval", step=1)
    tables.append_evaluation(1, "test", turns=turns, episodes=rows)
    summary = summarize(folder)
    rate = summary.splits[-1].after
    assert rate is not None
    count = len(played[0].turns)
    assert (rate.slips, rate.slip_turns, rate.slip_share) == (count, 2 * count, 0.5)
    assert slip_line(summary).startswith(f"Format: 50.0% of {2 * count} evaluation turns had a command")
    assert summary.retried == 1
    assert "1 of the episodes" in retry_line(summary)


def test_a_judge_that_cannot_be_read_is_warned_of_above_a_fifth() -> None:
    assert fallback_warning(0, 0) == ""
    assert fallback_warning(10, 2) == ""
    assert "30.0% of the 1,000 turns" in fallback_warning(1000, 300)


def test_records_from_before_a_column_are_read(folder: Path) -> None:
    record_run(folder)
    for path in folder.glob("parts/*/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop([c for c in ("retries", "format_slip") if c in table.column_names]), path)
    summary = summarize(folder)
    assert (summary.retried, slip_line(summary)) == (0, "")


def test_an_evaluation_without_training_has_no_after(folder: Path) -> None:
    tables = record_run(folder, steps=1)
    tables.resume(0)
    (split,) = summarize(folder).splits
    assert split.before is not None
    assert split.after is None
    assert split.gain_points is None


def test_nothing_recorded_yet(folder: Path) -> None:
    summary = summarize(folder)
    assert summary.splits == ()
    assert summary.steps == 0
    assert summary.train is None


def test_all_episodes_broken(folder: Path) -> None:
    tables = record_run(folder, steps=1)
    tables.resume(0)
    record_evaluation(tables, 0, "valid_unseen", won=0, n=0, not_ok=3)
    (split,) = summarize(folder).splits
    assert split.before is not None
    assert split.before.rate is None
    assert split.before.interval == (0.0, 1.0)


def test_nested_phases_are_counted_once_and_add_up() -> None:
    start = time.perf_counter()
    clock = PhaseClock({"evaluation": 100.0})
    with clock.phase("rollout"):
        time.sleep(0.02)
        with clock.phase("judge"):
            time.sleep(0.03)
    first = clock.take()
    with clock.phase("student"):
        time.sleep(0.01)
    second, totals = clock.take(), clock.totals()
    assert first["judge"] >= 0.03
    assert 0.02 <= first["rollout"] < 0.03 + first["judge"]
    assert second["rollout"] == 0.0
    assert second["student"] >= 0.01
    assert set(totals) == set(PHASES)
    assert sum(totals.values()) - 100 == pytest.approx(time.perf_counter() - start, abs=0.01)
    with pytest.raises(ValueError, match="is not a phase"), clock.phase("lunch"):
        pass


def test_a_score_beyond_won_or_not_makes_the_run_graded(folder: Path) -> None:
    tables = record_run(folder, steps=1)
    assert not summarize(folder).graded
    played = [make_episode(str(i), "test", Status.LOST) for i in range(3)]
    for episode, score in zip(played, (-100.0, 10.0, 30.0), strict=True):
        episode.score = score
    turns, rows = episode_rows(KEY, played, phase="eval", step=1)
    tables.append_evaluation(1, "test", turns=turns, episodes=rows)
    summary = summarize(folder)
    rate = summary.splits[-1].after
    assert rate is not None
    assert summary.graded
    assert (rate.mean_score, rate.mean_score_clipped) == (-20.0, pytest.approx(40 / 3))
    assert summary.macro_rate("before") is None
    assert summary.macro_rate("after") == pytest.approx((0.6 + 0.0) / 2)

"""The table of a multirun, on terminals of several widths."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sage.config.load import load
from sage.launch.claim import Found, look_up
from sage.launch.execute import Outcome
from sage.launch.row import Row
from sage.launch.table import Board
from sage.records.identity import Identity
from sage.records.rundir import new_attempt
from sage.signals import Stopped, told

LONG = "method=sage_opd confidence.tau=0.25 normalization=matched_scale"


def a_row(root: Path, seed: int, name: str = LONG, *, fails: str = "", graded: bool = False) -> Row:
    """A run that ended before this one, and how it is found again."""
    config = load([f"launch.runs_dir={root}", f"seed={seed}", "tracking=none"])
    identity = Identity.of(config, "m")
    folder = new_attempt(root, identity, config)
    folder.start(steps=60)
    if fails:
        folder.fail(fails)
    else:
        split = {"split": "valid_unseen", "rates": [a_rate(0.125, -4.5), a_rate(2 / 3, 21.25)]}
        folder.write_json("summary.json", {"splits": [split], "graded": graded})
        folder.done(step=60, success=2 / 3)
    return Row(name, config, identity, look_up(config, identity))


def a_rate(rate: float, score: float) -> dict[str, Any]:
    return {"step": 0, "won": 1, "n": 8, "rate": rate, "mean_score": score}


def shown(rows: list[Row], width: int) -> str:
    out = io.StringIO()
    Board(rows, Console(file=out, width=width, markup=False)).close(list_only=False)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 110, 160])
def test_nothing_is_cut_off_whatever_the_width(tmp_path: Path, width: int) -> None:
    rows = [a_row(tmp_path, 0, graded=True), a_row(tmp_path, 1, fails="stopped by SIGINT")]
    said = shown(rows, width)
    table, _, _ = said.partition("2 runs")
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= width
    for row in rows:
        assert row.identity.run in table
    together = "".join(table.split())
    assert "12.5→66.7" in together
    assert "score-4.5→21.2" in together
    assert "0/60" in together
    assert together.count("done") == together.count("stopped") == 1


def test_scores_are_shown_only_where_they_say_more_than_won_or_not(tmp_path: Path) -> None:
    assert "score" not in shown([a_row(tmp_path, 0)], 80)


def test_a_run_that_somebody_stopped_is_not_said_to_have_failed(tmp_path: Path) -> None:
    reason = str(Stopped(2))
    stopped, failed = a_row(tmp_path, 0, "one", fails=reason), a_row(tmp_path, 1, "two", fails="no room")
    assert "2 runs: 1 failed, 1 stopped; in" in shown([stopped, failed], 80)
    stopped.outcome = Outcome("failed", stopped.identity.run, tmp_path, reason, None, 1)
    failed.outcome = Outcome("failed", failed.identity.run, tmp_path, "no room", None, 1)
    waiting = Row("three", stopped.config, stopped.identity, Found("absent", "start", None))
    waiting.outcome = Outcome("not started", "x", None, "stopped before its turn", None, 1)
    said = shown([stopped, failed, waiting], 80)
    assert "STOPPED one: stopped by SIGINT" in said
    assert "FAILED two: no room" in said
    assert "NOT STARTED three: stopped before its turn" in said


def test_what_counts_as_stopped_is_the_state_and_its_reason() -> None:
    assert told("failed", str(Stopped(15))) == "stopped"
    assert told("failed", "the cable was stopped by a boot") == "failed"
    assert told("done", "stopped by SIGINT") == "done"

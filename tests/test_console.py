"""What the terminal shows, fed with plain data."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sage.console import LiveView, PlainView, open_view, print_summary, step_line
from sage.records.pulse import duration
from sage.records.summary import Rate, SplitResult, Summary

SUMMARY = Summary(
    run="0123456789ab",
    method="sage_opd",
    env="alfworld",
    seed=0,
    steps=20,
    splits=(
        SplitResult("valid_seen", ("generated",), (Rate(0, 30, 140, 0), Rate(20, 60, 140, 0))),
        SplitResult("valid_unseen", ("generated",), (Rate(0, 24, 134, 0), Rate(20, 50, 132, 2))),
    ),
    train=Rate(0, 100, 320, 0),
    label_shares={"SKIP": 0.6, "DET_FAIL": 0.4},
    labelled_turns=6400,
    seconds={"rollout": 120.0, "judge": 30.0, "evaluation": 50.0},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(summary: Summary, **arguments: object) -> str:
    stream = io.StringIO()
    print_summary(summary, Path("runs/0123456789ab/attempt_1"), stream=stream, **arguments)  # type: ignore[arg-type]
    return stream.getvalue()


def test_the_table_says_before_after_interval_and_gain() -> None:
    text = printed(SUMMARY, uri="sqlite:///mlflow.db")
    (unseen,) = [line for line in text.splitlines() if line.startswith("valid_unseen  ")]
    assert unseen.split() == [
        *("valid_unseen", "134/132", "17.9", "[12.3,", "25.3]", "37.9", "[30.1,", "46.4]", "+20.0", "2")
    ]
    assert "after 20 steps" in text
    assert "(generated games)" in text
    assert "not scores of the official benchmark" in text
    assert "SKIP 60.0%, DET_FAIL 40.0%" in text
    assert "Time 3 min 20 s: rollout 2 min 00 s (60%), judge 30 s (15%), evaluation 50 s (25%)." in text
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in text
    assert "\x1b" not in text


def test_the_end_of_a_run_says_what_its_numbers_hide() -> None:
    assert "Warning: the judge" not in printed(SUMMARY)
    text = printed(replace(SUMMARY, judged=100, fallback=21, retried=3))
    assert "Warning: the judge's reply names no single label on 21.0% of the 100 turns" in text
    assert "valid_unseen after 20 steps: 2 of 134 not ok; 37.3 % if those were all lost, 38.8 %" in text
    assert "batches with 3 of the episodes" in text


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    text = printed(SUMMARY)
    table = text[: text.index("Success in %")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


def test_episodes_that_the_context_cut_have_a_table_and_a_warning() -> None:
    assert "context" not in printed(SUMMARY)
    seen, unseen = SUMMARY.splits
    before, after = unseen.rates
    cut = replace(unseen, rates=(replace(before, context_full=7), replace(after, context_full=12)))
    summary = replace(SUMMARY, splits=(seen, cut), train=Rate(0, 100, 320, 0, context_full=5))
    text = printed(summary)
    table = text[: text.index("Success in %")]
    _, counts = [line.split() for line in table.splitlines() if "valid_unseen" in line]
    assert counts == ["valid_unseen", "7", "of", "134", "12", "of", "132"]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80
    assert "Warning: rollout.max_context cut 19 evaluation and 5 training episodes" in text
    row = {"step": 3, "episodes_context_full": 2}
    assert step_line(row) == "2 episodes cut by the context"


def test_official_games_need_no_warning_and_problems_replace_the_hint() -> None:
    from dataclasses import replace

    official = replace(SUMMARY, splits=(replace(SUMMARY.splits[0], sources=("official",)),))
    text = printed(official, uri="http://host", problems=["Not in MLflow: the server cannot be reached."])
    assert "not scores of" not in text
    assert "open http" not in text
    assert text.splitlines()[-1] == "Not in MLflow: the server cannot be reached."


def test_an_evaluation_only_run() -> None:
    evaluated = SplitResult("valid_unseen", ("official",), (Rate(0, 3, 20, 0),))
    text = printed(Summary("r", "base", "alfworld", 1, 0, (evaluated,), None, {}, 0))
    assert "success" in text
    assert "after" not in text
    assert "15.0 [5.2, 36.0]" in text


def test_an_empty_run_says_where_it_is() -> None:
    assert "Records: runs" in printed(Summary("", "", "", None, 0, (), None, {}, 0))


def test_plain_lines() -> None:
    stream = io.StringIO()
    view = open_view("sage_opd on alfworld", 2, stream)
    assert isinstance(view, PlainView)
    with view:
        view.begin("evaluating valid_unseen", 134)
        view.advance(10, "3 won")
        view.end("24 of 134 won")
        view.begin("rollout")
        view.end()
        view.step({"step": 1, "loss": 0.5, "stepped": True, "share_skip": 0.5, "seconds_rollout": 2.0})
        view.say("[not markup] 1 : 2 :smile:")
    assert stream.getvalue().splitlines() == [
        "sage_opd on alfworld",
        "evaluating valid_unseen: 134 episodes ...",
        "evaluating valid_unseen: 24 of 134 won (0.0 s)",
        "step 1/2: loss 0.5000, labels skip 50%, 2.0 s",
        "[not markup] 1 : 2 :smile:",
    ]


def test_a_terminal_gets_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    view = open_view("sage_opd on alfworld", 2, stream)
    assert isinstance(view, LiveView)
    with view:
        view.begin("evaluating valid_unseen", 10)
        view.advance(10, "[3 won]")
        view.end("3 of 10 won")
        view.advance()
        view.step({"step": 2, "loss": 0.25})
    text = stream.getvalue()
    assert "evaluating valid_unseen: 3 of 10 won" in text
    assert "loss 0.2500" in text
    assert "2/2" in text


def test_the_live_view_restores_the_terminal_after_an_exception() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True)
    view = LiveView("x", 1, console)
    view.begin("rollout", 3)
    with pytest.raises(RuntimeError), view:
        raise RuntimeError
    assert stream.getvalue().rstrip().endswith("\x1b[?25h")


def test_a_skipped_step_says_so() -> None:
    row = {"step": 3, "stepped": False, "loss": 0.0, "episodes_not_ok": 2}
    assert step_line(row) == "every turn skipped, no update, loss 0.0000, 2 episodes not ok"
    assert step_line({}) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_environment_that_grades_shows_its_mean_scores_and_many_splits_their_macro_average() -> None:
    def split(number: int, before: Rate, after: Rate) -> SplitResult:
        return SplitResult(f"test_{number}", ("official",), (before, after))

    splits = (
        split(0, Rate(0, 0, 50, 0, -12.5, 4.0), Rate(20, 10, 50, 0, 8.25, 15.0)),
        split(1, Rate(0, 5, 50, 0, 10.0, 10.0), Rate(20, 15, 50, 0, 30.0, 30.0)),
        split(2, Rate(0, 10, 20, 0, 50.0, 50.0), Rate(20, 20, 20, 0, 99.0, 99.0)),
    )
    text = printed(replace(SUMMARY, splits=splits, graded=True))
    rows = [line.split() for line in text.splitlines() if line.startswith("test_0")]
    assert rows[1] == ["test_0", "-12.50", "8.25", "+20.75", "4.00", "15.00"]
    assert "Macro-average of the 3 splits' success in %: 20.0 before, 50.0 after." in text
    assert "mean score" not in printed(SUMMARY)
    assert "Macro-average" not in printed(SUMMARY)

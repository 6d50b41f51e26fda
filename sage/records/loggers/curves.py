"""What of a run directory a logger is sent as curves, as plain data.

Everything is a function of the files, timestamps included, so sending again sends the same values. Curves
with a point a step come first by name; what a whole run has one value of is below `whole_run/`, last.
"""

from __future__ import annotations

import re

from sage.records.loggers.base import Point
from sage.records.rundir import RunDir
from sage.records.schema import STEPS
from sage.records.summary import Summary, summarize
from sage.records.tables import read

MAX_CURVES = 64
"""More make MLflow's pages slow; what is beyond stays in the tables."""
MARKER = "progress/step"
"""Curve logged last for each step: where it has a point, the step's other curves have theirs."""
DISTILL = "distill"
"""Begins the names of a step's own curves. Pages that sort sections by name, as MLflow's, open with them: the
evaluations' (`eval/`) have few points."""
SINGLE = "whole_run"
"""Begins the names of what is no curve, one value a run: pages that sort sections by name show it last."""

_NOT_CURVES = {"run", "method", "env", "source", "seed", "step", "time"}
_TOTALS = 2
"""Token totals of a finished run: the student's and the teacher's."""
_MEANS = ("mean_score", "mean_score_clipped", "mean_turns")


def step_times(run: RunDir) -> dict[int, int]:
    """Milliseconds since the epoch at which each step was recorded; step 0 is the start of the attempt."""
    rows = read(run.path, "steps", ["step", "time"]).to_pylist()
    status = run.status()
    start = status.started if status else 0.0
    return {0: int(1000 * start)} | {row["step"]: int(1000 * (row["time"] or start)) for row in rows}


def points(run: RunDir, after_step: int = -1) -> list[Point]:
    """All curves' points of steps beyond `after_step`, step by step with the marker last."""
    summary, times = summarize(run.path), step_times(run)
    found = _evaluation_points(summary, times)
    names = _curve_names(summary)
    rows = read(run.path, "steps").to_pylist()
    for row in rows:
        if row["step"] <= after_step:
            continue
        at = times[row["step"]]
        for column, value in row.items():
            if column not in _NOT_CURVES and value is not None:
                found.append(Point(_train_name(column), float(value), at, row["step"]))
    found = [point for point in found if point.key in names]
    markers = [Point(MARKER, float(row["step"]), times[row["step"]], row["step"]) for row in rows]
    found += [marker for marker in markers if marker.step > after_step]
    return sorted(found, key=lambda point: (point.step, point.key == MARKER))


def final_points(run: RunDir) -> list[Point]:
    """Figures that only a finished run has: the gain in percentage points of each split, tokens in all."""
    summary, times = summarize(run.path), step_times(run)
    at = times.get(summary.steps, times[0])
    book = summary.ledger
    totals = {"student": book.tokens["student"], "teacher": book.teacher} if book else {}
    return [Point(f"{SINGLE}/tokens/{name}", float(n), at, summary.steps) for name, n in totals.items()] + [
        Point(f"{SINGLE}/gain/{_metric_name(split.split)}", split.gain_points, at, summary.steps)
        for split in summary.splits
        if split.gain_points is not None
    ]


def _evaluation_points(summary: Summary, times: dict[int, int]) -> list[Point]:
    found = []
    for split in summary.splits:
        name = _metric_name(split.split)
        for rate in split.rates:
            values = {
                "success_rate": rate.rate,
                "n": rate.n,
                "not_ok": rate.not_ok,
                "success_if_lost": rate.bounds[0] if rate.not_ok else None,
                "success_if_won": rate.bounds[1] if rate.not_ok else None,
                "format_slips": rate.slip_share,
                "context_full": rate.context_full or None,
                "mean_score": rate.mean_score,
                "mean_score_clipped": rate.mean_score_clipped if summary.graded else None,
                "mean_turns": rate.mean_turns,
            }
            at = times.get(rate.step, times[0])
            for what, value in values.items():
                if value is not None:
                    found.append(Point(f"eval/{name}/{what}", float(value), at, rate.step))
        if split.before is not None and split.before.rate is not None:
            found.append(Point(f"{SINGLE}/before/{name}", split.before.rate, times[0], 0))
    return found


def success_curves(run: RunDir) -> list[str]:
    """Names of the success rates of its splits, those that were not trained on last seen first."""
    names = [_metric_name(split.split) for split in summarize(run.path).splits]
    return [f"eval/{name}/success_rate" for name in sorted(names, key=lambda name: "unseen" not in name)]


def _curve_names(summary: Summary) -> set[str]:
    """At most MAX_CURVES names (marker and gains included), the most wanted first."""
    splits = [_metric_name(split.split) for split in summary.splits]
    counts: tuple[str, ...] = ("n", "not_ok", "context_full") if summary.context_full[0] else ("n", "not_ok")
    counts += ("success_if_lost", "success_if_won") if summary.not_ok else ()
    counts += ("format_slips",)
    wanted = [f"eval/{split}/{what}" for what in ("success_rate", *counts) for split in splits]
    wanted += [_train_name(column) for column in STEPS if column not in _NOT_CURVES]
    wanted += [f"{SINGLE}/before/{split}" for split in splits]
    wanted += [f"eval/{split}/{what}" for what in _MEANS for split in splits]
    return set(wanted[: MAX_CURVES - 1 - _TOTALS - len(splits)])


def _train_name(column: str) -> str:
    for prefix, group in (("share_", "labels"), ("seconds_", "seconds"), ("speed_", "speed")):
        if column.startswith(prefix):
            return f"{group}/{column.removeprefix(prefix)}"
    return f"{DISTILL}/{column}"


def _metric_name(split: str) -> str:
    """MLflow allows few characters in names."""
    return re.sub(r"[^\w\-. ]", "_", split)

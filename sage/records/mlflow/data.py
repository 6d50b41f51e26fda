"""What of a run directory goes to MLflow, as plain data; `sage.records.mlflow.export` only sends it.

Everything is a function of the files, timestamps included, so exporting again sends the same values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from sage.config.plain import flatten
from sage.records.files import read_object
from sage.records.rundir import RunDir
from sage.records.schema import STEPS
from sage.records.summary import Summary, summarize
from sage.records.tables import read

MAX_CURVES = 64
"""More make MLflow's pages slow; what is beyond stays in the tables."""
MARKER = "progress/step"
"""Curve logged last for each step: where it has a point, the step's other curves have theirs."""
MAX_TABLE_ROWS = 2000

_NOT_CURVES = {"run", "method", "env", "source", "seed", "step", "time"}
_LONG = 240
_TOTALS = 2
"""Token totals of a finished run: the student's and the teacher's."""
_MEANS = ("mean_score", "mean_score_clipped", "mean_turns")


class Point(NamedTuple):
    """One value of one curve."""

    key: str
    value: float
    timestamp_ms: int
    step: int


def params(run: RunDir) -> dict[str, str]:
    """The digest fields, flattened: equal for every attempt of a run, so MLflow never sees one change."""
    return {key: _short(value) for key, value in flatten(run.identity().fields).items()}


def tags(run: RunDir) -> dict[str, str]:
    """What runs are filtered and grouped by."""
    identity, status = run.identity(), run.status()
    fields, provenance = identity.fields, read_object(run.path / "provenance.json") or {}
    code = provenance.get("code", {})
    env = fields.get("env", {})
    sources = set(read(run.path, "episodes", ["source"]).column("source").to_pylist())
    called = fields.get("name", fields.get("method"))
    name = f"{called}-{env.get('name')}-s{fields.get('seed')}-{identity.run[:6]}"
    values = {
        "mlflow.runName": name,
        "sage.key": key(run),
        "sage.run": identity.run,
        "sage.digest": identity.digest,
        "sage.attempt": run.attempt,
        "sage.state": status.state if status else "absent",
        "sage.reason": status.reason if status else "",
        "sage.directory": str(run.path.resolve()),
        "sage.commit": code.get("commit"),
        "sage.dirty": code.get("dirty"),
        "sage.source_sha256": code.get("source_sha256"),
        "sage.version": code.get("version"),
        "sage.manifest": identity.manifest_digest,
        "sage.host": status.host if status else "",
        "method": called,
        "preset": fields.get("method"),
        "sage.recipe": identity.recipe,
        "env": env.get("name"),
        "source": ",".join(sorted(sources)) or None,
        "seed": fields.get("seed"),
    }
    values |= {f"sage.model.{role}": digest for role, digest in provenance.get("models", {}).items()}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def key(run: RunDir) -> str:
    """Names one attempt of one run in any store: the tag that makes the export idempotent."""
    return f"{run.identity().digest}/attempt_{run.attempt}"


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


def episode_table(run: RunDir) -> dict[str, list[Any]]:
    """The comparison table: one row a game of the evaluations, won before and after, always in one order."""
    columns = ["phase", "step", "split", "task", "task_type", "rollout", "won", "status", "turns", "score"]
    rows = [row for row in read(run.path, "episodes", columns).to_pylist() if row["phase"] == "eval"]
    games: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["split"], row["task"], row["rollout"], row["step"])):
        fresh = {name: row[name] for name in ("split", "task", "task_type")}
        fresh |= {"won_before": None, "won_after": None}
        game = games.setdefault((row["split"], row["task"], row["rollout"]), fresh)
        game["won_before" if row["step"] == 0 else "won_after"] = row["won"]
        game |= {"status": row["status"], "turns": row["turns"], "score": row["score"], "step": row["step"]}
    chosen = list(games.values())[:MAX_TABLE_ROWS]
    names = list(chosen[0]) if chosen else []
    return {name: [row[name] for row in chosen] for name in names}


def sampled_episodes(run: RunDir, each: int) -> list[dict[str, Any]]:
    """Episodes for traces, each with its turns: up to `each` won and `each` lost ones of the last training
    steps (these have labels) and as many of the last evaluation, spread over the task types."""
    rows = [row for row in read(run.path, "episodes").to_pylist() if row["ok"]]
    chosen: list[dict[str, Any]] = []
    last = max((row["step"] for row in rows if row["phase"] == "eval"), default=0)
    trained = [row for row in rows if row["phase"] == "train"]
    evaluated = [row for row in rows if (row["phase"], row["step"]) == ("eval", last)]
    for of_phase in (trained, evaluated):
        of_phase.sort(key=lambda row: (-row["step"], row["split"], row["task"]))
        for won in (True, False):
            chosen += _spread([row for row in of_phase if bool(row["won"]) is won], each)
    return _with_turns(run, chosen) if chosen else []


def _with_turns(run: RunDir, episodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same episodes, each with its turns' rows under `played`."""
    wanted = {_episode_key(row): row | {"played": []} for row in episodes}
    for turn in read(run.path, "turns").to_pylist():
        episode = wanted.get(_episode_key(turn))
        if episode is not None:
            episode["played"].append(turn)
    return list(wanted.values())


def trace_name(episode: dict[str, Any]) -> str:
    """Identifies an episode within its run."""
    phase, step, split, task, rollout = _episode_key(episode)
    return f"{phase}/{step}/{split}/{task}/{rollout}"


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
            found.append(Point(f"before/{name}/success_rate", split.before.rate, times[0], 0))
    return found


def final_points(run: RunDir) -> list[Point]:
    """Figures that only a finished run has: the gain in percentage points of each split, tokens in all."""
    summary, times = summarize(run.path), step_times(run)
    at = times.get(summary.steps, times[0])
    book = summary.ledger
    totals = {"student": book.tokens["student"], "teacher": book.teacher} if book else {}
    return [Point(f"tokens/{name}", float(n), at, summary.steps) for name, n in totals.items()] + [
        Point(f"gain/{_metric_name(split.split)}", split.gain_points, at, summary.steps)
        for split in summary.splits
        if split.gain_points is not None
    ]


def _curve_names(summary: Summary) -> set[str]:
    """At most MAX_CURVES names (marker and gains included), the most wanted first."""
    splits = [_metric_name(split.split) for split in summary.splits]
    counts: tuple[str, ...] = ("n", "not_ok", "context_full") if summary.context_full[0] else ("n", "not_ok")
    counts += ("success_if_lost", "success_if_won") if summary.not_ok else ()
    counts += ("format_slips",)
    wanted = [f"eval/{split}/{what}" for what in ("success_rate", *counts) for split in splits]
    wanted += [_train_name(column) for column in STEPS if column not in _NOT_CURVES]
    wanted += [f"before/{split}/success_rate" for split in splits]
    wanted += [f"eval/{split}/{what}" for what in _MEANS for split in splits]
    return set(wanted[: MAX_CURVES - 1 - _TOTALS - len(splits)])


def _train_name(column: str) -> str:
    for prefix, group in (("share_", "labels"), ("seconds_", "seconds"), ("speed_", "speed")):
        if column.startswith(prefix):
            return f"{group}/{column.removeprefix(prefix)}"
    return f"train/{column}"


def _metric_name(split: str) -> str:
    """MLflow allows few characters in names."""
    return re.sub(r"[^\w\-. ]", "_", split)


def _spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first `count` rows, taking the task types in turn."""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_type.setdefault(row["task_type"], []).append(row)
    queues = list(by_type.values())
    chosen: list[dict[str, Any]] = []
    while queues and len(chosen) < count:
        chosen += [queue.pop(0) for queue in queues][: count - len(chosen)]
        queues = [queue for queue in queues if queue]
    return chosen


def _episode_key(row: dict[str, Any]) -> tuple[str, int, str, str, int]:
    return row["phase"], row["step"], row["split"], row["task"], row["rollout"]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    """A param's text; long texts (prompts) by their digest, for config.yaml beside it has them in full."""
    text = _plain(value)
    if len(text) <= _LONG and "\n" not in text:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{' '.join(text[:60].split())}... ({len(text)} characters, sha256 {digest})"


def batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Consecutive lists of at most `size`."""
    items = list(items)
    return (items[start : start + size] for start in range(0, len(items), size))

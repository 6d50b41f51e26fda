"""Episodes and turns that a logger shows as tables or traces, chosen the same way each time."""

from __future__ import annotations

from typing import Any

from sage.records.rundir import RunDir
from sage.records.tables import read

MAX_TABLE_ROWS = 2000
SAMPLED_STEPS = 16
"""Steps of training of which turns are shown, spread evenly over those that are recorded."""
_LONG_CELL = 600
_TURN_COLUMNS = (
    *("step", "won", "turn", "label", "observation", "thought", "action", "feedback", "weight", "confidence"),
    *("effective_weight", "failure", "judge_reply", "status", "task", "rollout"),
)


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


def turn_table(run: RunDir) -> dict[str, list[Any]]:
    """Turns of training, one row each: of `SAMPLED_STEPS` steps one won and one lost episode each."""
    import pyarrow.compute as pc

    rows = [row for row in read(run.path, "episodes").to_pylist() if row["ok"] and row["phase"] == "train"]
    rows.sort(key=lambda row: (row["step"], row["split"], row["task"], row["rollout"]))
    by_step: dict[tuple[int, bool], dict[str, Any]] = {}
    for row in rows:
        by_step.setdefault((row["step"], bool(row["won"])), row)
    steps = _thinned(sorted({step for step, _ in by_step}))
    wanted = {_episode_key(row) for (step, _), row in by_step.items() if step in steps}
    table = read(run.path, "turns")
    chosen = table.filter(pc.is_in(table["step"], pc.cast(steps, table["step"].type))) if steps else table[:0]
    turns = [row for row in chosen.to_pylist() if _episode_key(row) in wanted]
    turns.sort(key=lambda row: (_episode_key(row), row["turn"]))
    return {name: [_cell(row[name]) for row in turns] for name in _TURN_COLUMNS} if turns else {}


def _thinned(steps: list[int]) -> list[int]:
    """At most `SAMPLED_STEPS` of them, the first and the last included."""
    if len(steps) <= SAMPLED_STEPS:
        return steps
    last = len(steps) - 1
    return [steps[round(i * last / (SAMPLED_STEPS - 1))] for i in range(SAMPLED_STEPS)]


def _cell(value: Any) -> Any:
    """A long text says how long it is; the whole stands in tables/turns.parquet."""
    if isinstance(value, str) and len(value) > _LONG_CELL:
        return f"{value[:_LONG_CELL]} ... ({len(value):,} characters)"
    return value


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

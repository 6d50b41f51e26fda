"""How long the viewer takes to open many runs: synthetic records of 1,000 runs and a million turns.

    python benchmarks/view.py             # makes them in a temporary folder, measures, removes them
    python benchmarks/view.py --runs 1000 --turns 1000 --one 1000000 --folder many   # keeps them

Prints what a page waits for when it is opened (from nothing; imports are not counted) and when it turns
pages. `--one` makes one more run with that many turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sage.config.load import load
from sage.records.identity import Identity
from sage.records.rundir import RunDir, new_attempt
from sage.records.schema import EPISODES, STEPS, TABLES
from sage.records.summary import summarize
from sage.records.tables import ROW_GROUP, arrow_schema
from sage.view.answers import PLACE, Answers
from sage.view.library import Library

TURNS_OF_EPISODE = 20
PARTS = 25
"""Evaluations and steps that the episodes of a run are spread over."""


def main() -> None:
    options = _options()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="sage-view-"))
    runs = folder / "runs"
    try:
        if not runs.exists():
            _make(runs, options)
        _measure(runs, options)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=1000, help="of each run")
    parser.add_argument("--one", type=int, default=0, help="turns of one more run")
    parser.add_argument("--folder", type=Path, help="make them here and keep them")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def _make(runs: Path, options: argparse.Namespace) -> None:
    """One real run folder, and copies of it under other names: what differs is the id and the seed."""
    first = _run(runs, options.turns)
    for number in range(1, options.runs):
        folder = runs / f"{number:012x}" / "attempt_1"
        shutil.copytree(first.path, folder)
        data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        data["fields"]["seed"] = data["seed"] = number
        (folder / "run.json").write_text(json.dumps(data), encoding="utf-8")
    if options.one:
        _run(runs, options.one, seed=1)


def _run(runs: Path, turns: int, seed: int = 0) -> RunDir:
    config = load(["tracking=none", f"seed={seed}"])
    run = new_attempt(runs, Identity.of(config, "f" * 64), config)
    run.start(steps=PARTS)
    episodes = max(1, turns // TURNS_OF_EPISODE)
    _write(run.path, "episodes", [_episode(n, episodes) for n in range(episodes)])
    _write_turns(run.path, episodes)
    steps = [
        {**dict.fromkeys(STEPS), **_run_columns(), "step": n + 1, "loss": 1 / (n + 1)} for n in range(PARTS)
    ]
    _write(run.path, "steps", steps)
    _write(run.path, "tokens", [])
    run.write_json("summary.json", summarize(run.path).to_json())
    run.done(step=PARTS)
    return run


def _run_columns() -> dict[str, Any]:
    return {"run": "0" * 12, "method": "sage_opd", "env": "alfworld", "source": "generated", "seed": 0}


def _place(number: int, episodes: int) -> dict[str, Any]:
    part = number * PARTS // episodes
    phase = "eval" if part % 2 else "train"
    split = "valid_unseen" if part % 2 else "train"
    return {"phase": phase, "step": part, "split": split, "task": f"{split}/game-{number}", "rollout": 0}


def _episode(number: int, episodes: int) -> dict[str, Any]:
    row = {**dict.fromkeys(EPISODES), **_run_columns(), **_place(number, episodes), "task_type": "pick"}
    won = number % 3 == 0
    status = "won" if won else "turn_budget"
    return row | {"status": status, "ok": True, "won": won, "score": float(won), "turns": TURNS_OF_EPISODE}


def _write_turns(folder: Path, episodes: int) -> None:
    """A few episodes at a time: a million rows of Python would take gigabytes."""
    path = folder / "turns.parquet"
    with pq.ParquetWriter(path, arrow_schema("turns"), compression="zstd") as writer:
        for start in range(0, episodes, ROW_GROUP // TURNS_OF_EPISODE):
            numbers = range(start, min(episodes, start + ROW_GROUP // TURNS_OF_EPISODE))
            rows = [row for n in numbers for row in _turns(n, episodes)]
            writer.write_table(pa.Table.from_pylist(rows, schema=arrow_schema("turns")))


def _turns(number: int, episodes: int) -> Iterator[dict[str, Any]]:
    same = {**dict.fromkeys(TABLES["turns"]), **_run_columns(), **_place(number, episodes), "status": "won"}
    for turn in range(TURNS_OF_EPISODE):
        label = (
            ("SKIP", "WEAK", "STRONG", "DET_FAIL")[(number + turn) % 4] if same["phase"] == "train" else None
        )
        yield same | {
            "turn": turn,
            "observation": f"You arrive at shelf {number % 97}. You see a mug {turn}, a plate {number}. " * 2,
            "admissible": "\n".join(f"go to shelf {n}" for n in range(12)),
            "thought": f"find mug {number}",
            "action": f"go to shelf {turn}",
            "answer": f"Thought: find mug {number}\nAction: go to shelf {turn}",
            "feedback": f"You arrive at shelf {turn}.",
            "failure": "none",
            "answer_tokens": 12,
            "label": label,
            "weight": 0.5,
            "oracle": ("progress", "no_effect", "harm")[(number * 7 + turn) % 3],
            "effective_weight": (number + turn) % 5 / 4,
        }


def _write(folder: Path, table: str, rows: list[dict[str, Any]]) -> None:
    data = pa.Table.from_pylist(rows, schema=arrow_schema(table))
    pq.write_table(data, folder / f"{table}.parquet", compression="zstd", row_group_size=ROW_GROUP)


def _measure(runs: Path, options: argparse.Namespace) -> None:
    paths = sorted(runs.glob("*/attempt_1"))
    turns = sum(pq.ParquetFile(path / "turns.parquet").metadata.num_rows for path in paths)
    print(f"{len(paths):,} runs, {turns:,} turns; wall seconds (CPU seconds), best of {options.repeats}")
    largest = max(paths, key=lambda path: (path / "turns.parquet").stat().st_size)
    key = f"{largest.parent.name}.1"

    def opened() -> Answers:
        answers = Answers(Library([runs]))
        answers.runs()
        return answers

    with _timed("open: the list of runs, from nothing", options.repeats) as measure:
        answers = measure(opened)
    with _timed("look again, nothing has changed", options.repeats) as measure:
        measure(lambda: answers.library.refresh(0.0))
    size = pq.ParquetFile(largest / "turns.parquet").metadata.num_rows

    def fresh() -> Answers:
        other = Answers(answers.library)
        other.run(key)
        return other

    with _timed(f"open a run of {size:,} turns, from nothing", options.repeats) as measure:
        answers = measure(fresh)
    with _timed("its turns, skipped and harmful: the first 100", options.repeats) as measure:
        measure(lambda: answers.turns(key, ["skipped_harmful"], 0, 100))
    last = answers.episodes(key, {}, 0, 1)["total"] - 1
    row = answers.episodes(key, {}, last, 1)["rows"][0]
    with _timed("its last episode with every turn", options.repeats) as measure:
        measure(lambda: answers.episode(key, {name: row[name] for name in PLACE}))


@contextmanager
def _timed(what: str, repeats: int) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Hands out what runs a function several times and prints the best."""

    def measure(function: Callable[[], Any]) -> Any:
        wall, cpu, result = [], [], None
        for _ in range(repeats):
            before = time.perf_counter(), time.process_time()
            result = function()
            wall.append(time.perf_counter() - before[0])
            cpu.append(time.process_time() - before[1])
        print(f"{what:<48} {min(wall):6.2f} ({min(cpu):.2f})")
        return result

    yield measure


if __name__ == "__main__":
    main()

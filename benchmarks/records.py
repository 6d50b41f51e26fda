"""Writing and exporting the records of 100,000 turns, and a run's own set-up.

    OMP_NUM_THREADS=1 python benchmarks/records.py [--turns 100000]

Turns go through the same functions as in a run: rows from episodes, one Parquet part per evaluation of 5,000
turns, consolidation, the summary, and the export to a fresh MLflow store (its creation, and importing mlflow,
are timed apart: a run does both in another process). What was written is read back and compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timing import machine

PART = 5000
TURNS = 20


@contextmanager
def measured(name: str, total: list[float] | None = None) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent = time.process_time() - cpu
    print(f"| {name} | {spent:.2f} | {time.perf_counter() - wall:.2f} |", flush=True)
    if total is not None:
        total.append(spent)


def episodes_of(number: int) -> list[Any]:
    """The episodes of one part: texts that differ, as real ones do."""
    from sage.episode import Episode, Status, Task, Turn

    made = []
    for e in range(PART // TURNS):
        index = number * (PART // TURNS) + e
        task = Task(
            f"valid_unseen/game-{index}", "alfworld", "valid_unseen", f"type-{index % 6}", "generated"
        )
        episode = Episode(
            task, goal="put a mug in a box", scene=f"You are in room {index}.", status=Status.WON
        )
        for t in range(TURNS):
            text = f"You arrive at shelf {t}. On the shelf {t}, you see a mug {index}, and a pen {t}."
            episode.turns.append(
                Turn(
                    t, message=text, observation=text, answer=f"Thought: find mug\nAction: go to shelf {t}",
                    answer_start=40 * t + 30, answer_end=40 * t + 40, thought="find mug",
                    action=f"go to shelf {t}", feedback=text,
                    admissible=tuple(f"go to shelf {k}" for k in range(20)),
                )
            )  # fmt: skip
        episode.token_ids = list(range(40 * TURNS))
        made.append(episode)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=100_000)
    args = parser.parse_args()
    print(machine())
    print("\n| what | CPU s | wall s |\n|---|---|---|")
    setup()
    from sage.config.load import load
    from sage.records import provenance
    from sage.records.identity import Identity
    from sage.records.rows import RunKey, episode_rows
    from sage.records.rundir import new_attempt
    from sage.records.summary import summarize
    from sage.records.tables import Tables

    config = load(["tracking.traces=0"])
    parts = [episodes_of(number) for number in range(args.turns // PART)]
    total: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = new_attempt(root / "runs", Identity.of(config, "f" * 64), config)
        folder.start(steps=len(parts))
        provenance.write(folder.path, manifest_digest="f" * 64, models={"student": "a" * 64})
        key = RunKey(folder.identity().run, "sage_opd", "alfworld", "generated", 0)
        tables = Tables(folder.path)
        tables.resume(0)
        with measured(f"rows of {args.turns:,} turns, written in {len(parts)} parts", total):
            for step, episodes in enumerate(parts):
                turns, rows = episode_rows(key, episodes, phase="eval", step=step)
                tables.append_evaluation(step, "valid_unseen", turns=turns, episodes=rows)
        with measured("consolidated", total):
            tables.consolidate()
        with measured("summary", total):
            folder.write_json("summary.json", summarize(folder.path).to_json())
        folder.done(step=len(parts))
        store = f"sqlite:///{root / 'mlflow.db'}"
        with measured("import mlflow, make a store"):
            from mlflow import MlflowClient

            MlflowClient(store).search_experiments(max_results=1)
        from sage.records.mlflow.export import export

        with measured("export to MLflow", total):
            export(folder.path, store)
        compare(folder.path, parts)
    print(f"| **write and export** | **{sum(total):.2f}** | |")


def compare(folder: Path, parts: list[list[Any]]) -> None:
    import pyarrow.parquet as pq

    read = pq.read_table(folder / "turns.parquet", columns=["task", "turn", "action", "observation"])
    written = [(e.task.id, t.index, t.action, t.observation) for part in parts for e in part for t in e.turns]
    assert sorted(zip(*(read[c].to_pylist() for c in read.column_names), strict=True)) == sorted(written)


def setup() -> None:
    """What a run does before it plays: imports, config, both models, manifest."""
    steps: list[tuple[str, Callable[[], Any]]] = []
    kept: dict[str, Any] = {}

    def imports() -> None:
        import sage.run  # noqa: F401
        from sage.config.load import load

        kept["config"] = load(["tracking=none"])

    def models() -> None:
        from sage.policy.models.load import load_model
        from sage.training.batch import match_models

        match_models(load_model(kept["config"].student), load_model(kept["config"].teacher))

    def manifest() -> None:
        for split in ("train", "valid_seen", "valid_unseen"):
            kept["config"].env.tasks(split)

    steps = [
        ("imports and config", imports),
        ("both models", models),
        ("manifest (games are there)", manifest),
    ]
    total: list[float] = []
    for name, step in steps:
        with measured(f"set-up: {name}", total):
            step()
    print(f"| **set-up of a run** | **{sum(total):.2f}** | |")


if __name__ == "__main__":
    main()

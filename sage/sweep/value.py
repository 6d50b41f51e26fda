"""What a finished run is worth to a study, read from its records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sage.records.ledger import ledger
from sage.records.rundir import RunDir
from sage.records.tables import read
from sage.sweep.settings import Objective


@dataclass(frozen=True, slots=True)
class RunValue:
    """`figures`: one per objective. `games`: won (1) or not (0) by game of the first objective's split."""

    run: str
    figures: tuple[float, ...]
    games: dict[str, float]


def value_of(folder: Path, objectives: list[Objective]) -> RunValue | None:
    """None where the run is not done, or has no ok episode on the split."""
    status = RunDir(folder).status() if folder.name.startswith("attempt_") else None
    if status is None or status.state != "done":
        return None
    figures: list[float] = []
    games: dict[str, float] = {}
    for objective in objectives:
        if objective.metric == "teacher_tokens":
            figures.append(float(ledger(read(folder, "steps").to_pylist()).teacher))
            continue
        won = last_games(folder, objective.split)
        if not won:
            return None
        figures.append(sum(won.values()) / len(won))
        games = games or won
    return RunValue(folder.parent.name, tuple(figures), games)


def last_games(folder: Path, split: str) -> dict[str, float]:
    """Game to 1.0 (won) or 0.0 in the latest evaluation of `split`; episodes that are not ok are left out."""
    columns = ["phase", "split", "step", "task", "ok", "won"]
    rows = [
        r
        for r in read(folder, "episodes", columns).to_pylist()
        if r["phase"] == "eval" and r["split"] == split
    ]
    last = max((r["step"] for r in rows), default=0)
    return {r["task"]: float(r["won"]) for r in rows if r["step"] == last and r["ok"]}

"""What a run has cost in tokens, and how fast each phase went through them; from its steps table alone.

    python -m sage.records.ledger runs/            # tokens and seconds by phase, a column for each run
    python -m sage.records.ledger runs/A runs/B    # two runs side by side: the price of the judge

A folder that cannot be read is a note on stderr; the others are shown. Training steps only: an evaluation
asks no teacher.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.records.below import open_below
from sage.records.clock import PHASES
from sage.records.files import Unreadable
from sage.records.reader import Attempt
from sage.records.tables import DamagedRecords, read

TEACHER = {
    "scored": "teacher_tokens",
    "judged": "judge_tokens",
    "played": "teacher_play_tokens",
}
"""What goes through the teacher, by its column of the steps table; the sum is `trainer.teacher_budget`'s."""

WORK = {
    "rollout": "student_tokens",
    "judge": "judge_tokens",
    "teacher": "teacher_tokens",
    "student": "student_tokens",
}
"""The tokens that a phase is there for: student tokens played and trained on (a prompt's tokens, which go
through with them, are not counted), a query's prompt and reply, all tokens of a scoring pass."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Sums over the training steps of a run.

    tokens: `student` (trained on), `gold` (`rollout.gold`), and the teacher's `scored`, `judged`, `played`.
    seconds: wall time by phase. queries: of the judge that reached the model.
    """

    tokens: dict[str, int]
    seconds: dict[str, float]
    queries: int

    @property
    def teacher(self) -> int:
        """All tokens that went through the teacher."""
        return sum(self.tokens[name] for name in TEACHER)

    @property
    def tokens_per_second(self) -> dict[str, float]:
        """By phase, see WORK; a phase without time or without work is left out."""
        names = {column: name for name, column in TEACHER.items()} | {"student_tokens": "student"}
        work = {phase: self.tokens[names[column]] for phase, column in WORK.items()}
        took = self.seconds
        return {p: n / took[p] for p, n in work.items() if n and took.get(p)}

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `summary.json`."""
        return {
            "tokens": {**self.tokens, "teacher": self.teacher},
            "judge_queries": self.queries,
            "training_seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }


def ledger(steps: Sequence[Mapping[str, Any]]) -> Ledger:
    """Of rows of the steps table; columns that a row lacks count as nothing."""

    def total(column: str) -> Any:
        return sum(row.get(column) or 0 for row in steps)

    columns = {"student": "student_tokens", "gold": "gold_tokens", **TEACHER}
    tokens = {name: int(total(column)) for name, column in columns.items()}
    seconds = {p: float(total(f"seconds_{p}")) for p in PHASES if p != "evaluation"}
    return Ledger(tokens, seconds, int(total("judge_queries")))


def side_by_side(runs: Sequence[tuple[str, Ledger]]) -> list[list[str]]:
    """Rows of cells: a heading, then tokens, seconds and tokens per second; a column for each run."""
    rows = [["", *(title for title, _ in runs)]]
    for name in ("student", "gold", *TEACHER):
        rows.append([f"{name} tokens", *(f"{book.tokens[name]:,}" for _, book in runs)])
    rows.append(["teacher tokens in all", *(f"{book.teacher:,}" for _, book in runs)])
    rows.append(["judge queries", *(f"{book.queries:,}" for _, book in runs)])
    phases = [p for p in PHASES if p != "evaluation"]
    for phase in phases:
        rows.append([f"{phase} s", *(_share(book, phase) for _, book in runs)])
    rows.append(["training s", *(f"{sum(book.seconds.values()):.1f}" for _, book in runs)])
    for phase in WORK:
        speeds = [book.tokens_per_second.get(phase) for _, book in runs]
        rows.append([f"{phase} tokens/s", *("" if speed is None else f"{speed:,.0f}" for speed in speeds)])
    return rows


def _title(attempt: Attempt) -> str:
    fields = attempt.identity.fields if attempt.identity else {}
    again = f" attempt {attempt.number}" if attempt.number > 1 else ""
    return f"{fields.get('method', '?')} s{fields.get('seed', '?')} {attempt.folder.path.parent.name}{again}"


def _steps(folder: Path) -> list[dict[str, Any]]:
    """Rows of the steps table. Raises Unreadable."""
    try:
        return read(folder, "steps").to_pylist()
    except (DamagedRecords, OSError) as error:
        raise Unreadable(str(error)) from error


def _share(book: Ledger, phase: str) -> str:
    whole = sum(book.seconds.values())
    return f"{book.seconds[phase]:.1f} ({book.seconds[phase] / whole:.0%})" if whole else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m sage.records.ledger", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, or folders of them")
    options = parser.parse_args(arguments)
    attempts, notes = open_below(options.runs)
    runs: list[tuple[str, Ledger]] = []
    for attempt in attempts:
        try:
            if steps := _steps(attempt.folder.path):
                runs.append((_title(attempt), ledger(steps)))
        except Unreadable as error:
            notes.append(str(error))
    for note in notes:
        print(note, file=sys.stderr)
    if not runs:
        print("No run with a training step is there; give run directories.", file=sys.stderr)
        return 2
    rows = side_by_side(runs)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for name, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        print("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())

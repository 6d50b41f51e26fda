"""What a run has cost in tokens, and how fast each phase went through them; from its steps table alone.

`python -m analysis cost runs/` shows it, a row for each run. Training steps only: an evaluation
asks no teacher.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage.records.clock import PHASES

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

    tokens: `student` (trained on), `demonstration`
    (`rollout.demonstration`), and the teacher's `scored`, `judged`, `played`.
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

    columns = {"student": "student_tokens", "demonstration": "demonstration_tokens", **TEACHER}
    tokens = {name: int(total(column)) for name, column in columns.items()}
    seconds = {p: float(total(f"seconds_{p}")) for p in PHASES if p != "evaluation"}
    return Ledger(tokens, seconds, int(total("judge_queries")))


if __name__ == "__main__":
    print("This is a table of `python -m analysis cost RUNS` now, called runs.", file=sys.stderr)
    sys.exit(2)

"""One question with what counts as its answer, and the JSON lines it is kept in.

A row is what the FlashRAG data sets (and Search-R1 with them) have: `id`, `question`, `golden_answers`,
`metadata`. What only generated questions know, or multi-hop sets say of their support, is in `metadata`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """`gold`: titles of the passages that lead to the answer, in the order of the hops where they have one;
    empty where the set does not say. `relations`: what each is asked for (generated questions only)."""

    id: str
    text: str
    answers: tuple[str, ...]
    gold: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        metadata = {"gold": list(self.gold), "relations": list(self.relations)}
        return {
            "id": self.id, "question": self.text, "golden_answers": list(self.answers), "metadata": metadata,
        }

    def line(self) -> str:
        """The row as one line of JSON; what a task's sha256 is taken over."""
        return json.dumps(self.row(), ensure_ascii=False, sort_keys=True)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.line().encode()).hexdigest()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Question:
        """From a row of ours. Raises KeyError or TypeError where it is none."""
        metadata = row["metadata"]
        return cls(
            str(row["id"]), str(row["question"]), tuple(map(str, row["golden_answers"])),
            tuple(metadata["gold"]), tuple(metadata["relations"]),
        )


@functools.lru_cache(maxsize=32)
def read_questions(path: Path) -> dict[str, Question]:
    """Questions of one file by id, in its order; kept in memory. Raises OSError or ValueError."""
    questions: dict[str, Question] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            question = Question.of(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"Line {number} of {path} is no question ({error!r}).") from error
        questions[question.id] = question
    return questions

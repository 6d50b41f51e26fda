"""A whole environment in one file: a key lies in one of three drawers; open that one.

    python -m sage env=drawers trainer.steps=2

The rest of it is `conf/env/drawers.yaml` (its settings) and `conf/prompt/drawers.yaml` (its words). It has no
expert, which is optional (`sage.envs.base.WithExpert`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import Field

from sage.config.registry import environments
from sage.envs.base import Environment, Step
from sage.envs.manifest import MissingData, manifest_digest
from sage.envs.settings import EnvSettings
from sage.episode import Failure, Task

SPLITS = ("train", "test")
COMMANDS = tuple(f"open drawer {n}" for n in (1, 2, 3))


@environments.register("drawers")
class DrawersSettings(EnvSettings):
    """Three drawers, one key."""

    games: int = Field(ge=1)
    """Games of each split."""

    def tasks(self, split: str) -> list[Task]:
        if split not in SPLITS:
            raise MissingData(f"env=drawers has no split {split!r}; its splits are {', '.join(SPLITS)}.")
        ids = [f"{split}/{number:04d}" for number in range(self.games)]
        return [Task(i, "drawers", split, "find the key", "generated", sha256=_sha256(i)) for i in ids]

    def manifest_digest(self, splits: Sequence[str]) -> str:
        return manifest_digest([task for split in splits for task in self.tasks(split)])

    def make(self) -> Environment:
        return Drawers()


class Drawers:
    """One game at a time; which drawer holds the key follows from the task's id."""

    goal = "find the key"

    def reset(self, task: Task) -> Step:
        self._key = COMMANDS[int(task.sha256, 16) % len(COMMANDS)]
        return Step("You see a drawer 1, a drawer 2, and a drawer 3.", COMMANDS)

    def step(self, action: str) -> Step:
        if action not in COMMANDS:
            return Step("Nothing happens.", COMMANDS, failure=Failure.NO_EFFECT)
        if action == self._key:
            return Step("You find the key.", (), reward=1.0, score=1.0, done=True, won=True)
        return Step("The drawer is empty.", COMMANDS)

    def close(self) -> None:
        """Nothing to let go of."""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

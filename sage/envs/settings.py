"""What the config says about an environment, and the four things a run asks of it.

Settings classes import in milliseconds: games, engines and planners are loaded inside the methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from sage.config.registry import Component

if TYPE_CHECKING:
    from sage.envs.base import Environment
    from sage.episode import Task


class EnvSettings(Component):
    """Base class of every environment's settings. Picklable: `sage.envs.pool` sends `make` to its workers."""

    turn_budget: int = Field(ge=1, le=10_000)
    """Turns after which an unfinished episode ends with status `turn_budget`."""
    evaluation_splits: list[str] = Field(min_length=1)
    """What `evaluation.splits` is unless set."""

    def prepare(self) -> None:
        """Make or check what the tasks need on disk, once; may take a minute the first time.

        Raises MissingData where it is not there and cannot be made.
        """

    def tasks(self, split: str) -> list[Task]:
        """The split's tasks, in the manifest's order. Raises MissingData for a split it does not have."""
        raise NotImplementedError

    def make(self) -> Environment:
        """A fresh environment that plays any of the tasks."""
        raise NotImplementedError

    def longest_step_s(self) -> float:
        """Seconds that a step may take by the environment's own limits; 0 where it waits for nobody.

        A run whose `step_timeout_s` is shorter is refused."""
        return 0.0

    def expert_sample(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks of a split that the expert plays at the start of a run, to see whether they fit into
        `rollout.max_context`: one, and where they are cheap to play, more."""
        return list(tasks[:1])

    def expert_turns(self, task: Task) -> int | None:
        """Turns of the expert's game where they are known without playing it."""
        return None

    def gives_distances(self) -> bool:
        """Whether the expert's distance to the goal is asked for around every turn: its environments then
        have `expert_distance()`. False (the default) leaves the columns about it empty."""
        return False

    def manifest_digest(self, splits: Sequence[str]) -> str:
        """sha256 over id and content of every task of the splits a run plays: part of the run digest."""
        raise NotImplementedError

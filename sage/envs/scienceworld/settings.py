"""`env: scienceworld` of the config: which variations, under which simplifications, in which words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from sage.config.registry import Settings, environments
from sage.envs.settings import EnvSettings

if TYPE_CHECKING:
    from sage.envs.base import Environment
    from sage.episode import Task


class PerTask(Settings):
    """Variations of each of the 30 tasks at most, by split; fewer where a task has fewer."""

    train: int = Field(ge=1, le=1_000_000)
    """Evenly spread over the train variations."""
    dev: int = Field(ge=1, le=1_000_000)
    """The first ones."""
    test: int = Field(ge=1, le=1_000_000)
    """The first ones; 5 is the paper's evaluation, 149 tasks."""


@environments.register("scienceworld")
class ScienceWorldSettings(EnvSettings):
    """Elementary-school science experiments in text, 30 tasks."""

    simplifications: str
    """The package's: `easy`, or some of teleportAction, openDoors, openContainers, noElectricalAction,
    selfWateringFlowerPots, separated by commas; empty for none. Part of every task's hash."""
    per_task: PerTask
    task_types: list[str] | None
    """Only these of the 30 tasks (`find-plant`, …), in every split; null takes all."""
    observation: Literal["full", "brief"]
    """`full` is the package's text; `brief` leaves out air, the agent, open doors, empty containers and
    articles, for models with a small context."""
    admissible: bool
    """List the valid actions at every turn, for prompts that show them; a step takes 20 times as long."""
    distances: bool
    """Record the gold path's distance to the goal around every turn (`simplifications: easy` only)."""

    @field_validator("task_types")
    @classmethod
    def _known_and_in_order(cls, names: list[str] | None) -> list[str] | None:
        if names is None:
            return None
        from sage.envs.scienceworld.tasks import VARIATIONS

        if unknown := sorted(set(names) - set(VARIATIONS)):
            near = difflib.get_close_matches(unknown[0].lower().strip(), VARIATIONS, 1)
            nearest = f" (the nearest is {near[0]})" if near else ""
            raise ValueError(
                f"env.task_types has {', '.join(unknown)}: no task of ScienceWorld{nearest}; there are "
                f"{', '.join(VARIATIONS)}."
            )
        if not names:
            raise ValueError("env.task_types: an empty list has no tasks; null takes all 30.")
        return [name for name in VARIATIONS if name in names]

    def prepare(self) -> None:
        from sage.envs.scienceworld.jvm import find_java, package_version

        package_version()
        find_java()

    def tasks(self, split: str) -> list[Task]:
        from sage.envs.scienceworld.jvm import package_version
        from sage.envs.scienceworld.tasks import list_tasks

        caps, version = self.per_task.model_dump(), package_version()
        return list_tasks(split, caps, self.simplifications, version, self.task_types)

    def manifest_digest(self, splits: Sequence[str]) -> str:
        from sage.envs.manifest import manifest_digest

        return manifest_digest([task for split in splits for task in self.tasks(split)])

    def make(self) -> Environment:
        from sage.envs.scienceworld.env import ScienceWorldEnvironment

        return ScienceWorldEnvironment(self.simplifications, self.observation, self.admissible)

    def expert_sample(self, tasks: Sequence[Task]) -> list[Task]:
        """The one with the longest gold path: a JVM is slow to start and to ask."""
        return sorted(tasks, key=lambda task: -(self.expert_turns(task) or 0))[:1]

    def expert_turns(self, task: Task) -> int | None:
        from sage.envs.scienceworld.gold import SIMPLIFICATIONS, paths

        path = paths().get(task.id) if self.simplifications == SIMPLIFICATIONS else None
        return None if path is None else len(path)

    def gives_distances(self) -> bool:
        from sage.envs.scienceworld.gold import SIMPLIFICATIONS

        return self.distances and self.simplifications == SIMPLIFICATIONS

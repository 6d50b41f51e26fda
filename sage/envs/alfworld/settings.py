"""`env: alfworld` of the config: which games, which engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sage.config.registry import Settings, environments
from sage.envs.settings import EnvSettings

if TYPE_CHECKING:
    from sage.envs.base import Environment
    from sage.episode import Task


class GeneratedSettings(Settings):
    """The set of generated games; made once per combination into a cache."""

    seed: int = Field(ge=0, le=2**63 - 1)
    """Of the generator; apart from the run's seed, so that runs with different seeds play the same games."""
    train: int = Field(ge=0, le=1_000_000)
    """Number of games to train on."""
    valid_seen: int = Field(ge=0, le=1_000_000)
    """Number of validation games on the floor plans of train."""
    valid_unseen: int = Field(ge=0, le=1_000_000)
    """Number of games; floor plans of this split are never used for train."""


@environments.register("alfworld")
class AlfworldSettings(EnvSettings):
    """Household tasks in text, six task types."""

    engine: Literal["native", "textworld"]
    """`native` is our simulator, `textworld` the original (seconds a reset); same games, same text."""
    games: Literal["auto", "official", "generated"]
    """`auto` takes official games where `data` or ALFWORLD_DATA names them, else generated ones."""
    data: str | None
    """Folder that holds `json_2.1.1`, instead of ALFWORLD_DATA."""
    generated: GeneratedSettings
    distances: bool
    """Record the expert's distance to the goal around every turn; costs a planner call per step."""

    def prepare(self) -> None:
        from sage.envs.alfworld.manifest import resolve_source
        from sage.envs.alfworld.simulator.floorplans import WheelMissing
        from sage.envs.alfworld.store import ensure_games
        from sage.envs.manifest import MissingData

        if resolve_source(self.games, self._root()) == "generated":
            try:
                ensure_games(self.generated.seed, self._counts())
            except WheelMissing as error:
                raise MissingData(str(error)) from error

    def tasks(self, split: str) -> list[Task]:
        """The split's tasks; `official_<split>` and `generated_<split>` name a source other than `games`, so
        that one run can be trained on games of one source and evaluated on both."""
        from sage.envs.alfworld.manifest import load_tasks

        for source in ("official", "generated"):
            if split.startswith(f"{source}_"):
                other = self.model_copy(update={"games": source})
                return [replace(task, split=split) for task in other.tasks(split.removeprefix(f"{source}_"))]
        self.prepare()
        return load_tasks(self.games, split, root=self.data, seed=self.generated.seed, counts=self._counts())

    def manifest_digest(self, splits: Sequence[str]) -> str:
        from sage.envs.manifest import manifest_digest

        return manifest_digest([task for split in splits for task in self.tasks(split)])

    def make(self) -> Environment:
        from sage.envs.alfworld.env import AlfworldEnvironment

        return AlfworldEnvironment(engine=self.engine)

    def expert_sample(self, tasks: Sequence[Task]) -> list[Task]:
        from sage.envs.manifest import spread

        return spread(tasks, 100) if self.engine == "native" else list(tasks[:1])

    def gives_distances(self) -> bool:
        return self.distances

    def _counts(self) -> dict[str, int]:
        return {k: v for k, v in self.generated.model_dump().items() if k != "seed"}

    def _root(self) -> Path | None:
        return None if self.data is None else Path(self.data).expanduser()

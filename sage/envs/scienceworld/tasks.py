"""ScienceWorld's 30 tasks, their variations and splits, without starting a JVM.

Invariant: `variations` gives what the package's `getVariationsTrain/Dev/Test` give (a test compares them), so
that a manifest costs nothing. A task's id is `<task>/<variation>`; its hash covers task, variation,
simplifications and the package's version, which together determine the game.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from sage.envs.manifest import MissingData
from sage.episode import Task

VARIATIONS = {
    "boil": 30,
    "change-the-state-of-matter-of": 30,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "find-animal": 300,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "freeze": 30,
    "grow-fruit": 126,
    "grow-plant": 126,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "lifespan-longest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "lifespan-shortest-lived": 125,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "melt": 30,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "use-thermometer": 540,
}
"""Variations of each task in scienceworld 1.2.3, numbered from 0."""

SPLITS = ("train", "dev", "test")


def variations(task: str, split: str) -> list[int]:
    """All variations of `task` in `split`: half, a quarter and the rest, as the package divides them."""
    count = VARIATIONS[task]
    quarter = count // 4
    bounds = {"train": (0, 2 * quarter), "dev": (2 * quarter, 3 * quarter), "test": (3 * quarter, count)}
    first, end = bounds[split]
    # The package forgets what is left over after the fifth quarter-sized group.
    return list(range(first, min(end, 5 * quarter)))


def chosen(task: str, split: str, cap: int) -> list[int]:
    """At most `cap` variations: of train evenly spread ones (neighbours differ little), else the first."""
    there = variations(task, split)
    if len(there) <= cap:
        return there
    if split == "train":
        return [there[i * len(there) // cap] for i in range(cap)]
    return there[:cap]


def list_tasks(
    split: str,
    caps: Mapping[str, int],
    simplifications: str,
    version: str,
    task_types: Iterable[str] | None = None,
) -> list[Task]:
    """The split's tasks of `task_types` (None: all), by name and variation. Raises MissingData for a split
    that is not there."""
    if not caps.get(split):
        there = ", ".join(name for name in SPLITS if caps.get(name))
        raise MissingData(f"ScienceWorld has no split {split!r} here; its splits are: {there}.")
    return [
        Task(
            id=f"{task}/{variation}",
            env="scienceworld",
            split=split,
            task_type=task,
            source="official",
            sha256=_digest(task, variation, simplifications, version),
        )
        for task in (VARIATIONS if task_types is None else task_types)
        for variation in chosen(task, split, caps[split])
    ]


def _digest(*identity: str | int) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def parse_id(identifier: str) -> tuple[str, int]:
    """(task, variation) of a task id."""
    task, _, variation = identifier.rpartition("/")
    return task, int(variation)

"""Which games each step of a training plays, and how often."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sage.episode import Task
from sage.policy.seat import Job


@dataclass(frozen=True, slots=True)
class Schedule:
    """The games of a training. `seed` is the run's; `turn_budget` an episode's most turns."""

    tasks: Sequence[Task]
    tasks_per_step: int
    episodes_per_task: int
    turn_budget: int
    seed: int

    def jobs(self, step: int) -> list[Job]:
        """Those of 1-based `step`, of all processes; see `jobs_of_step`."""
        return jobs_of_step(self.tasks, step, self.tasks_per_step, self.episodes_per_task, self.seed)

    def is_first_rollout(self, job: Job) -> bool:
        """Whether it is the first of its task in its step."""
        return job.rollout_index % self.episodes_per_task == 0


def jobs_of_step(
    tasks: Sequence[Task], step: int, tasks_per_step: int, episodes_per_task: int, seed: int
) -> list[Job]:
    """The jobs of 1-based `step`: the next tasks of an endless row of epochs, each shuffled by (seed, epoch).

    The rollout index goes on counting over epochs, so that a task which comes again is sampled afresh.
    """
    if not tasks:
        raise ValueError("There is no task to train on; check env.games and the split's manifest.")
    jobs = []
    for position in range((step - 1) * tasks_per_step, step * tasks_per_step):
        epoch, index = divmod(position, len(tasks))
        task = tasks[_epoch_order(len(tasks), seed, epoch)[index]]
        jobs += [Job(task, epoch * episodes_per_task + r) for r in range(episodes_per_task)]
    return jobs


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    return random.Random(f"{seed}/tasks/{epoch}").sample(range(count), count)

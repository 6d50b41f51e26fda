"""Play every game of a split exactly once with the student as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sage.envs.pool import EnvPool
from sage.episode import Episode, Task
from sage.policy.models.load import LanguageModel
from sage.policy.rollout import PlaySettings, play
from sage.policy.seat import Job
from sage.training.processes import Processes


@dataclass(frozen=True, slots=True)
class Evaluator:
    """How evaluations are played: one model, one pool, one set of sampling settings for all of them.

    The random stream does not depend on the training step, so that the evaluations of a run differ by the
    weights alone.
    """

    student: LanguageModel
    pool: EnvPool
    settings: PlaySettings
    processes: Processes

    def __call__(
        self, tasks: Sequence[Task], on_episode: Callable[[Episode], None] | None = None
    ) -> list[Episode]:
        """One episode per task, in the order of `tasks`, in every process; each process plays its share.

        Raises RuntimeError where the episodes are not exactly the tasks, each once.
        """
        mine = [Job(task) for task in self.processes.share(tasks)]
        played = play(self.student, self.pool, mine, self.settings, on_episode) if mine else []
        played = self.processes.gather(played)
        by_task = {episode.task.id: episode for episode in played}
        wrong = Counter(e.task.id for e in played) - Counter(t.id for t in tasks)
        if wrong or len(played) != len(tasks):
            raise RuntimeError(
                f"The evaluation played {len(played)} episodes for {len(tasks)} games "
                f"({sum(wrong.values())} too many); every game must be played exactly once."
            )
        return [by_task[task.id] for task in tasks]

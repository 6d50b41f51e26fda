"""Too many episodes that say nothing about the agent: the run fails, and what it had is set aside.

A rate over the episodes that happened to survive is no result: the ones that break are not like the others (a
long game needs more memory). So nothing of such an evaluation or step goes into the tables, and the same line
plays it again; what was played can be read in `set_aside/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sage.episode import Episode
from sage.errors import RunFailure
from sage.records.rows import RunKey, episode_rows
from sage.records.rundir import RunDir
from sage.records.tables import write_aside
from sage.training.processes import Processes


class TooManyNotOk(RunFailure):
    """More of an evaluation or of a training step is not ok than `evaluation.max_not_ok` allows.

    what: names it. step: optimizer steps done. episodes: all of them, ok or not.
    """

    def __init__(self, sentence: str, what: str, step: int, episodes: Sequence[Episode]) -> None:
        super().__init__(sentence)
        self.what, self.step, self.episodes = what, step, list(episodes)


def too_many(bad: int, count: int, most: float) -> bool:
    """Whether `bad` of `count` episodes are more than the share `most`, or all."""
    return bad > 0 and (bad > most * count or bad == count)


def refuse_not_ok(episodes: Sequence[Episode], most: float, what: str, step: int) -> None:
    """Raise TooManyNotOk where more than the share `most` of the episodes is not ok, or all are.

    what: `the evaluation of valid_seen after 0 steps`, for the sentence. step: optimizer steps done.
    """
    bad = [episode for episode in episodes if not episode.status.is_ok]
    if too_many(len(bad), len(episodes), most):
        first = bad[0]
        sentence = (
            f"{len(bad)} of {len(episodes)} episodes of {what} are not ok, and "
            f"evaluation.max_not_ok={most:g} allows {int(most * len(episodes))}. "
            f"The first, {first.task.id}, ended {first.status}: {first.error}"
        )
        raise TooManyNotOk(sentence, what, step, episodes)


def refuse_not_ok_anywhere(
    processes: Processes, mine: Sequence[Episode], most: float, what: str, step: int
) -> None:
    """`refuse_not_ok` over the episodes of all processes, in every one of them. Collective."""
    bad = sum(not episode.status.is_ok for episode in mine)
    bad_in_all, in_all = processes.all_reduce_sum((bad, len(mine)))
    if too_many(int(bad_in_all), int(in_all), most):
        refuse_not_ok(processes.gather(mine), most, what, step)


@contextmanager
def set_aside(folder: RunDir, key: RunKey, writes: bool) -> Iterator[None]:
    """Keep the episodes of a TooManyNotOk beside the tables (in the process that `writes`), and say where."""
    try:
        yield
    except TooManyNotOk as error:
        if writes:
            turns, episodes = episode_rows(key, error.episodes, phase="failed", step=error.step)
            where = write_aside(folder.path, error.what.replace(" ", "_"), turns=turns, episodes=episodes)
            folder.log(f"{error}; its episodes are in {where}, and in no table")
        raise

"""How long runs will take, by runs like them that are done below the same `runs_dir`.

Two prices, both in seconds: an evaluated game and a training episode (played, judged, scored and learned
from). They are means over done runs of the same environment and student; a run that is under way and has no
such companion is priced by what it has done itself. An estimate, for people: nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.config.schema import RunConfig
from sage.records.activity import STEP_PHASES
from sage.records.reader import open_attempt
from sage.records.rundir import RunStatus

NEWEST = 20
"""Done runs that are asked for their prices: machines and code change."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Seconds for each; None where no run tells."""

    game: float | None
    episode: float | None


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to do: evaluated games before and after (and during) training, training episodes."""

    before: int
    after: int
    episodes: int

    @classmethod
    def of(cls, config: RunConfig) -> Work:
        how, trains = config.evaluation, config.task == "train" and config.trainer.steps > 0
        once = sum(_games(config, split, how.limit) for split in how.splits)
        during = 0
        if trains and how.every:
            times = (config.trainer.steps - 1) // how.every
            during = times * sum(_games(config, split, how.during_limit) for split in how.splits)
        batch = config.trainer.tasks_per_step * config.rollout.episodes_per_task
        return cls(
            before=once if how.before or not trains else 0,
            after=during + (once if how.after else 0) if trains else 0,
            episodes=config.trainer.steps * batch if trains else 0,
        )


def prices(config: RunConfig) -> Prices:
    """Of done runs with this run's environment and student."""
    games: list[float] = []
    episodes: list[float] = []
    for fields, status, played in _done_runs(Path(config.launch.runs_dir)):
        if (fields["env"]["name"], fields["student"]["path"]) != (config.env.name, config.student.path):
            continue
        evaluation, training = _split(status.seconds)
        batch = fields["trainer"]["tasks_per_step"] * fields["rollout"]["episodes_per_task"]
        if played:
            games.append(evaluation / played)
        if status.step:
            episodes.append(training / (status.step * batch))
    return Prices(_mean(games), _mean(episodes))


def seconds_left(config: RunConfig, status: RunStatus | None, known: Prices) -> float | None:
    """From here to the end of the run; None where nobody can tell. `status` is None for a run not begun."""
    work = Work.of(config)
    if status is None:
        return _total(known, work.before + work.after, work.episodes)
    share = status.step / status.steps if status.steps else 0.0
    began = status.step > 0 or status.phase in STEP_PHASES
    evaluation, training = _split(status.seconds)
    done = round(work.episodes * share)
    game, episode = known.game, known.episode
    if game is None and began and work.before:
        game = evaluation / work.before
    if episode is None and done:
        episode = training / done
    games = work.after + (0 if began else work.before)
    return _total(Prices(game, episode), games, work.episodes - done)


def _total(known: Prices, games: int, episodes: int) -> float | None:
    if (games and known.game is None) or (episodes and known.episode is None):
        return None
    return games * (known.game or 0.0) + episodes * (known.episode or 0.0)


def _split(seconds: dict[str, float]) -> tuple[float, float]:
    """(evaluation, everything else)."""
    evaluation = seconds.get("evaluation", 0.0)
    return evaluation, sum(seconds.values()) - evaluation


def _done_runs(runs_dir: Path) -> Iterator[tuple[dict[str, Any], RunStatus, int]]:
    """(config fields, status, evaluated games) of the newest done attempts."""
    found = sorted(runs_dir.glob("*/attempt_*/summary.json"), key=_age)
    for path in found[:NEWEST]:
        run = open_attempt(path.parent, tables=False)
        if run.summary is None or run.identity is None or run.status is None:
            continue  # half written, or of another version
        if run.status.state == "done" and run.status.seconds:
            played = sum(rate["n"] for split in run.summary["splits"] for rate in split["rates"])
            yield run.identity.fields, run.status, played


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _games(config: RunConfig, split: str, limit: int | None) -> int:
    count = _count(config.env, split)
    return count if limit is None else min(limit, count)


_counts: dict[tuple[str, str], int] = {}


def _count(env: Any, split: str) -> int:
    key = (env.model_dump_json(), split)
    if key not in _counts:
        _counts[key] = len(env.tasks(split))
    return _counts[key]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None

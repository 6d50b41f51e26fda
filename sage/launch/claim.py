"""Which attempt folder a run works in, or why it does not start.

Invariant: of all processes that want the same run at once, one gets it. States of a run: absent, running (a
process beats in status.json), half-done (its process is gone), failed, done.

    on_existing   done     running   half-done, failed      absent
    skip          skip     skip      skip                   start
    resume        skip     skip      go on in the attempt   start
    rerun         start    start     start                  start      (always a new attempt)
    error         error    error     error                  start
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from sage.config import RunConfig
from sage.envs.manifest import MissingData
from sage.records.identity import Identity
from sage.records.rundir import RunDir, RunStatus, attempts, new_attempt
from sage.settings import ConfigError

State = Literal["absent", "running", "half-done", "failed", "done"]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a run and what its policy makes of it. `folder` is the latest attempt, if any."""

    state: State
    action: Literal["start", "resume", "skip"]
    folder: RunDir | None
    status: RunStatus | None = None


def splits_played(config: RunConfig) -> list[str]:
    """Splits whose games the run plays; their content is part of its identity."""
    trained = ["train"] if config.task == "train" else []
    return [*trained, *(split for split in config.evaluation.splits if split not in trained)]


def identify(config: RunConfig) -> Identity:
    """The run's identity; makes the games the first time. Raises ConfigError where they are not there."""
    env = config.env
    try:
        env.prepare()
        return Identity.of(config, env.manifest_digest(splits_played(config)))
    except MissingData as error:
        raise ConfigError(str(error)) from error


def look_up(config: RunConfig, identity: Identity) -> Found:
    """What there is now; changes nothing. Raises ConfigError under `on_existing=error`."""
    try:
        known = attempts(Path(config.launch.runs_dir), identity)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    folder = known[-1] if known else None
    status = folder.status() if folder else None
    state = _state(folder, status)
    policy = config.launch.on_existing
    if state != "absent" and policy == "error":
        raise ConfigError(
            f"This run exists already ({state}, {folder and folder.path}) and launch.on_existing=error; "
            "use resume to go on, rerun for another attempt."
        )
    if state == "absent" or policy == "rerun":
        return Found(state, "start", folder, status)
    if policy == "resume" and state in ("half-done", "failed"):
        return Found(state, "resume", folder, status)
    return Found(state, "skip", folder, status)


def claim(config: RunConfig, identity: Identity) -> Found:
    """`look_up`, and unless it says skip, take the attempt for this process: its status says `running`."""
    home = Path(config.launch.runs_dir) / identity.run
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock"):
        found = look_up(config, identity)
        if found.action == "skip":
            return found
        if found.action == "resume" and found.folder is not None:
            folder = found.folder
        else:
            folder = new_attempt(Path(config.launch.runs_dir), identity, config)
        status = folder.start(steps=config.trainer.steps)
        return Found(found.state, found.action, folder, status)


def _state(folder: RunDir | None, status: RunStatus | None) -> State:
    if folder is None:
        return "absent"
    if status is None:
        return "half-done"
    if status.state == "running":
        return "running" if status.is_alive() else "half-done"
    return status.state

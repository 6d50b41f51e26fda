"""Which attempt folder a run works in, or why it does not start.

Invariant: of all processes that want the same run at once, one gets it. States of a run: absent, running (a
process works on it, or is suspended), half-done (its process is gone), failed, done.

    on_existing   done     running   half-done, failed      damaged   absent
    skip          skip     skip      skip                   skip      start
    resume        skip     skip      go on in the attempt   start     start
    rerun         start    start     start                  start     start      (always a new attempt)
    error         error    error     error                  error     start

Damaged: there are attempts, and none of them can be read; a new one is begun beside them.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sage.config.schema import RunConfig
from sage.envs.manifest import MissingData
from sage.errors import ConfigError
from sage.locks import locked
from sage.records import owner, run_ledger
from sage.records.faults import machine_fault, what_failed
from sage.records.identity import Identity
from sage.records.reader import Attempt, attempt_dirs, open_attempt
from sage.records.rundir import BEGUN, RunDir, RunStatus, new_attempt
from sage.training.seal import set_aside

State = Literal["absent", "running", "half-done", "failed", "damaged", "done"]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a run and what its policy makes of it. `folder` is the latest attempt that can be
    used, if any; `notes` has a sentence for whatever could not be read."""

    state: State
    action: Literal["start", "resume", "skip"]
    folder: RunDir | None
    status: RunStatus | None = None
    notes: tuple[str, ...] = ()


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
    except OSError as error:
        if fault := machine_fault(error, Path(str(error.filename or "."))):
            raise ConfigError(fault) from error
        raise


def look_up(config: RunConfig, identity: Identity, *, wait: bool = False) -> Found:
    """What there is now; changes nothing. Raises ConfigError under `on_existing=error`.

    A run whose process is on another machine is `running` until its heartbeat has stood still for a lease;
    `wait` waits until that is known.
    """
    folder, status, state, notes = _survey(Path(config.launch.runs_dir) / identity.run, identity)
    while wait and state == "running" and folder is not None and not owner.seen_beating(folder.path):
        _say_once(f"{folder.path} was last written elsewhere: watching its heartbeat, {owner.LEASE_S:.0f} s.")
        time.sleep(1.0)
        status = folder.status()
        state = _state(folder, status)
    policy = config.launch.on_existing
    if state != "absent" and policy == "error":
        raise ConfigError(
            f"This run exists already ({state}, {folder.path if folder else identity.run}) and "
            "launch.on_existing=error; "
            "use resume to go on, rerun for another attempt."
        )
    if state == "absent" or policy == "rerun":
        return Found(state, "start", folder, status, notes)
    if policy == "resume" and state == "damaged":
        return Found(state, "start", folder, status, notes)
    if policy == "resume" and state in ("half-done", "failed"):
        return Found(state, "resume", folder, status, notes)
    return Found(state, "skip", folder, status, notes)


def claim(config: RunConfig, identity: Identity) -> Found:
    """`look_up`, and unless it says skip, take the attempt for this process: its status says `running`."""
    look_up(config, identity, wait=True)  # before the lock, for others need not wait for that
    home = Path(config.launch.runs_dir) / identity.run
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock", owner.PATIENCE_S):
            found = look_up(config, identity)
            if found.action == "skip":
                return found
            if found.action == "resume" and found.folder is not None:
                folder = found.folder
            else:
                for left in home.glob(f"{BEGUN}*"):  # by a process that was killed, for we hold the lock
                    shutil.rmtree(left, ignore_errors=True)
                folder = new_attempt(Path(config.launch.runs_dir), identity, config)
            status = folder.start(steps=config.trainer.steps)
            run_ledger.append(
                home.parent, found.action, identity.digest, run=identity.run, attempt=folder.attempt
            )
            notes = [*found.notes, *set_aside(folder.checkpoints)]
    except OSError as error:
        raise ConfigError(f"The run cannot be recorded in {home}: {what_failed(error)}.") from error
    for note in notes:
        folder.log(note)
    return Found(found.state, found.action, folder, status, tuple(notes))


def _survey(home: Path, identity: Identity) -> tuple[RunDir | None, RunStatus | None, State, tuple[str, ...]]:
    """The latest usable attempt, its status and state, and a note for everything that is not usable."""
    paths, notes = attempt_dirs(home)
    if not paths and os.path.lexists(home) and not home.is_dir():
        raise ConfigError(f"{home} is in the way: the folder of this run is to be there. Move it.")
    usable: Attempt | None = None
    for path in paths:
        attempt = open_attempt(path)
        notes += attempt.notes
        if attempt.identity is None and "run.json" not in attempt.problems:
            notes.append(f"{path} has no run.json: it is left out.")
        elif attempt.identity is not None and attempt.identity.digest != identity.digest:
            notes.append(f"{path} belongs to run {attempt.identity.digest[:24]}: it is left out.")
            continue
        if attempt.is_usable or attempt.folder.is_at_work():
            usable = attempt
            if attempt.status is None and "status.json" not in attempt.problems:
                notes.append(f"{path} has no status.json: it counts as half done.")
    if usable is None:
        return None, None, "damaged" if paths else "absent", tuple(notes)
    return usable.folder, usable.status, _state(usable.folder, usable.status), tuple(notes)


def _state(folder: RunDir | None, status: RunStatus | None) -> State:
    if folder is None:
        return "absent"
    if status is None:
        return "half-done"
    if status.state == "running":
        return "running" if folder.is_at_work(status) else "half-done"
    return status.state


_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        print(text, file=sys.stderr, flush=True)

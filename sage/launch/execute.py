"""One run in this process: claim its attempt, run the story, mark it done or failed.

`sage.run.run(config, folder, export=...)` finds its attempt claimed (status `running`, heartbeat beating,
run.json and config.yaml written) and records into it; where it holds a checkpoint, the run goes on from it.
What it raises marks the attempt failed; what it returns is not looked at, since success and progress are read
from status.json.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sage.config.schema import RunConfig
from sage.envs.manifest import MissingData
from sage.errors import ConfigError, ModelError, OutOfMemory, RunFailure, is_out_of_memory, named_reason
from sage.launch.access import open_to
from sage.launch.claim import Found, claim, identify, look_up
from sage.records.activity import TICK_S, Activity, doing
from sage.records.faults import machine_fault, what_failed
from sage.records.files import Unreadable
from sage.records.identity import Identity
from sage.records.owner import TakenOver, owner_of
from sage.records.preregistration import plan_hash
from sage.records.pulse import EveryMinute
from sage.records.rundir import RunDir
from sage.records.tables import DamagedRecords
from sage.signals import defer_signals, stop_on_signals

_SENTENCES = (ConfigError, ModelError, MissingData, DamagedRecords, Unreadable)
"""Errors that say in one sentence what to change."""
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_TAKEN_OVER = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended. `state` is done, skipped, failed, taken over, or running (elsewhere)."""

    state: str
    run: str = ""
    folder: Path | None = None
    reason: str = ""
    """One sentence where it failed or was skipped."""
    success: float | None = None
    exit_code: int = 0
    traced: bool = False
    """Whether a traceback has told already what went wrong."""


def execute(config: RunConfig, *, identity: Identity | None = None, export: bool = True) -> Outcome:
    """Run `config` here, unless it is done already.

    `export=False` leaves the MLflow export to the caller, who follows many runs. Raises ConfigError where the
    run cannot start; everything that goes wrong later is an Outcome.
    """
    open_to(config.launch.access)
    if config.task == "pretrain":
        return _pretrain(config)
    plan_hash(config.launch.plan)  # one that is not there is refused, whatever there is of the run
    activity = Activity()
    with stop_on_signals(), activity.running():
        with _said_aloud(activity):
            identity = identity or _identified(config)
            if look_up(config, identity).action != "skip":
                refuse(config)
            found = _claim_once(config, identity)
        for note in found.notes if _is_writer() else ():
            print(note, file=sys.stderr, flush=True)
        folder = found.folder
        if found.action == "skip":
            return skipped(found, identity)
        assert folder is not None
        try:
            return _tell(config, folder, identity, export, activity)
        except TakenOver as lost:  # the records are another process's: not a word into them
            return Outcome("taken over", identity.run, folder.path, str(lost), None, EXIT_TAKEN_OVER)


def refuse(config: RunConfig) -> None:
    """Raise ConfigError for what the story can refuse before it is claimed: such a run leaves no attempt, and
    no start in the ledger. Whatever else goes wrong here is for the run itself to meet and to record."""
    try:
        with defer_signals(), doing("importing torch"):  # see `_tell`
            from sage import run as story
        if look := getattr(story, "refuse", None):  # a plugin's story may have none
            with doing("looking at games, tokenizers and settings"):
                look(config)
    except _SENTENCES as error:
        raise ConfigError(str(error)) from error
    except (Exception, SystemExit):
        return


def _identified(config: RunConfig) -> Identity:
    with doing("looking for the games"):
        return identify(config)


@contextmanager
def _said_aloud(activity: Activity) -> Iterator[None]:
    """What is done before there is a run to record it goes to who watches, a line a minute."""
    if not _is_writer():
        yield
        return
    say = EveryMinute(partial(print, flush=True), TICK_S if sys.stdout.isatty() else None)
    with activity.listening(say), activity.ticking():
        yield


@contextmanager
def _beating(folder: RunDir, activity: Activity) -> Iterator[None]:
    """The run's heartbeat, with what it does, and a line a minute about it in the run's log."""
    if not _is_writer():
        yield
        return
    with activity.listening(EveryMinute(folder.log)), folder.heartbeat(activity):
        yield


def _tell(
    config: RunConfig, folder: RunDir, identity: Identity, export: bool, activity: Activity
) -> Outcome:
    """The run's story in the attempt that was claimed, and its end in the attempt's status."""
    try:
        with _beating(folder, activity):
            # Through the module, so that a plugin may put another story in its place. A signal waits: in
            # the middle of an import it can come out as any other error.
            with defer_signals():
                from sage import run as story

            story.run(config, folder, export=export)
        _mark(folder, "")
    except TakenOver:
        raise
    except _SENTENCES as error:
        _mark(folder, str(error))
        raise ConfigError(str(error)) from error
    except KeyboardInterrupt as stop:
        reason = str(stop) or "stopped by SIGINT"
        _mark(folder, reason)
        return _outcome(folder, identity, reason, getattr(stop, "exit_code", 130))
    except BaseException as error:  # a SystemExit inside a run ends that run, not what waits for it
        fault = _fault(error, folder.path)
        reason = fault or named_reason(error)
        if not fault:
            traceback.print_exc()
        with suppress(OSError):
            folder.log(traceback.format_exc())
        _mark(folder, reason)
        return replace(_outcome(folder, identity, reason, EXIT_FAILED), traced=not fault)
    return _outcome(folder, identity, "", 0)


def _fault(error: BaseException, folder: Path) -> str:
    """The sentence where it says all that a traceback would; nothing where it is the program that failed."""
    if isinstance(error, RunFailure):
        return str(error)
    if is_out_of_memory(error):
        way = (
            "lower speed.slots, speed.judge_batch or speed.micro_batch, none of which changes a result: the "
            "same line goes on from the newest checkpoint"
        )
        return str(OutOfMemory("this run", error, way))
    return machine_fault(error, folder)


def skipped(found: Found, identity: Identity) -> Outcome:
    """The outcome of a run that `found` says not to start."""
    success = found.status.success if found.status else None
    path = found.folder.path if found.folder else None
    if found.state == "done":
        reason = f"done before ({path})"
    elif found.state == "running" and found.status is not None:
        reason = f"running elsewhere ({found.status.host}, pid {found.status.pid}, {path}){_asleep(path)}"
    else:
        reason = f"{found.state} before, and launch.on_existing=skip ({path})"
    return Outcome("skipped", identity.run, path, reason, success)


def _asleep(path: Path | None) -> str:
    owner = owner_of(path) if path else None
    if owner is None or owner.process.state() != "suspended":
        return ""
    ways = f"`kill -CONT {owner.process.pid}` lets it go on, `kill -9 {owner.process.pid}` ends it"
    return f", suspended: {ways}, launch.on_existing=rerun begins another attempt beside it"


def _claim_once(config: RunConfig, identity: Identity) -> Found:
    """The claim of the main process, told to the others where `accelerate launch` started several."""
    from sage.training.processes import check_launch

    check_launch()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return claim(config, identity)
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    box: list[Any] = [None]
    # Without `cpu` accelerate sees one process on a machine without a GPU, and each would claim.
    if PartialState(cpu=config.student.device == "cpu" or not torch.cuda.is_available()).is_main_process:
        try:
            found = claim(config, identity)
            path = found.folder and str(found.folder.path)
            box = [(found.state, found.action, path, found.status, found.notes)]
        except ConfigError as error:
            box = [str(error)]
    broadcast_object_list(box)
    if isinstance(box[0], str):
        raise ConfigError(box[0])
    state, action, path, status, notes = box[0]
    return Found(state, action, RunDir(Path(path)) if path else None, status, notes)


def _mark(folder: RunDir, failure: str) -> None:
    """Write the end into status.json, unless the run has done so itself or another process is the writer."""
    status = folder.status()
    if status is None or status.state != "running" or not _is_writer():
        return
    if failure:
        try:
            folder.fail(failure)
        except OSError as error:  # nobody can be told but who watches; the process being gone says the rest
            print(f"{folder.path} could not be marked: {what_failed(error)}.", file=sys.stderr)
    else:
        folder.done()


def _is_writer() -> bool:
    """A run directory is safe for one writer: the main process of those that `accelerate launch` started."""
    return int(os.environ.get("RANK", "0")) == 0


def _outcome(folder: RunDir, identity: Identity, reason: str, exit_code: int) -> Outcome:
    status = folder.status()
    success = status.success if status else None
    return Outcome("failed" if reason else "done", identity.run, folder.path, reason, success, exit_code)


def _pretrain(config: RunConfig) -> Outcome:
    """`task=pretrain` makes a model directory, not a run: it has no identity and no records."""
    from pretrain.run import pretrain
    from sage.policy.prompts import choose_style

    with stop_on_signals():
        try:
            style = choose_style(config.prompt, config.student.path)
            made = pretrain(config.pretrain, config.env, style, config.student, config.seed)
        except RunFailure as error:
            return Outcome("failed", reason=str(error), exit_code=EXIT_FAILED)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    print(f"The model is in {made}.")
    return Outcome("done", folder=made)

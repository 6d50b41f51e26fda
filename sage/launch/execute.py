"""One run in this process: claim its attempt, run the story, mark it done or failed.

`sage.run.run(config, folder, export=...)` finds its attempt claimed (status `running`, heartbeat beating,
run.json and config.yaml written) and records into it; where it holds a checkpoint, the run goes on from it.
What it raises marks the attempt failed; what it returns is not looked at, since success and progress are read
from status.json.
"""

from __future__ import annotations

import os
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.config import RunConfig
from sage.envs.manifest import MissingData
from sage.launch.claim import Found, claim, identify
from sage.policy.model import ModelError
from sage.records.identity import Identity
from sage.records.rundir import RunDir
from sage.settings import ConfigError
from sage.stopping import stop_on_signals

EXIT_FAILED = 1
EXIT_CONFIG = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended. `state` is done, skipped, failed, or running (elsewhere)."""

    state: str
    run: str = ""
    folder: Path | None = None
    reason: str = ""
    """One sentence where it failed or was skipped."""
    success: float | None = None
    exit_code: int = 0


def execute(config: RunConfig, *, identity: Identity | None = None, export: bool = True) -> Outcome:
    """Run `config` here, unless it is done already.

    `export=False` leaves the MLflow export to the caller, who follows many runs. Raises ConfigError where the
    run cannot start; everything that goes wrong later is an Outcome.
    """
    if config.task == "pretrain":
        return _pretrain(config)
    with stop_on_signals():
        identity = identity or identify(config)
        found = _claim_once(config, identity)
        folder = found.folder
        assert folder is not None
        if found.action == "skip":
            return skipped(found, identity)
        try:
            with folder.heartbeat() if _is_writer() else nullcontext():
                # Through the module, so that a plugin may put another story in its place.
                from sage import run as story

                story.run(config, folder, export=export)
            _mark(folder, "")
        except (ConfigError, ModelError, MissingData) as error:  # each says in one sentence what to change
            _mark(folder, str(error))
            raise ConfigError(str(error)) from error
        except KeyboardInterrupt as stop:
            reason = str(stop) or "stopped by SIGINT"
            _mark(folder, reason)
            return _outcome(folder, identity, reason, getattr(stop, "exit_code", 130))
        except BaseException as error:  # a SystemExit inside a run ends that run, not what waits for it
            reason = f"{type(error).__name__}: {first_line(error)}"
            folder.log(traceback.format_exc())
            traceback.print_exc()
            _mark(folder, reason)
            return _outcome(folder, identity, reason, EXIT_FAILED)
        return _outcome(folder, identity, "", 0)


def skipped(found: Found, identity: Identity) -> Outcome:
    """The outcome of a run that `found` says not to start."""
    success = found.status.success if found.status else None
    path = found.folder.path if found.folder else None
    if found.state == "done":
        reason = f"done before ({path})"
    elif found.state == "running" and found.status is not None:
        reason = f"running elsewhere ({found.status.host}, pid {found.status.pid}, {path})"
    else:
        reason = f"{found.state} before, and launch.on_existing=skip ({path})"
    return Outcome("skipped", identity.run, path, reason, success)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


def _claim_once(config: RunConfig, identity: Identity) -> Found:
    """The claim of the main process, told to the others where `accelerate launch` started several."""
    from sage.sharding import check_launch

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
            box = [(found.state, found.action, found.folder and str(found.folder.path), found.status)]
        except ConfigError as error:
            box = [str(error)]
    broadcast_object_list(box)
    if isinstance(box[0], str):
        raise ConfigError(box[0])
    state, action, path, status = box[0]
    return Found(state, action, RunDir(Path(path)), status)


def _mark(folder: RunDir, failure: str) -> None:
    """Write the end into status.json, unless the run has done so itself or another process is the writer."""
    status = folder.status()
    if status is None or status.state != "running" or not _is_writer():
        return
    if failure:
        folder.fail(failure)
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
    from sage.policy.prompts import choose_style
    from sage.pretrain.run import pretrain

    with stop_on_signals():
        try:
            style = choose_style(config.prompt, config.student.path)
            made = pretrain(config.pretrain, config.env, style, config.seed)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    print(f"The model is in {made}.")
    return Outcome("done", folder=made)

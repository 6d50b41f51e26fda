"""Run directories: `runs/<digest12>/attempt_<n>/`, the digest that of `sage.records.identity`.

In an attempt's folder:
    run.json         identity: digest, fields, schema version, manifest digest, what is no result
    config.yaml      the complete resolved config
    owner.json       whose it is: the token of the process that may write here (sage/records/owner.py)
    status.json      state, reason, heartbeat, progress, at the end the records' digests; replaced atomically
    provenance.json  and code.diff: which code, packages and machine
    parts/, *.parquet, summary.json, log.txt, checkpoints/, mlflow.json, system.jsonl
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sage.config.schema import RunConfig
from sage.records import run_ledger
from sage.records.activity import Activity, Now
from sage.records.atomic import overwrite, write_atomic
from sage.records.faults import FULL
from sage.records.files import Unreadable, read_object
from sage.records.identity import Identity
from sage.records.owner import TakenOver, at_work, check, forget, is_orphan_of, owner_of, take, writing
from sage.records.process import Process
from sage.records.repeated import repeated
from sage.records.seal import digests
from sage.redaction import redact, redact_data
from sage.signals import stop_with

if TYPE_CHECKING:
    from pydantic import TypeAdapter

State = Literal["running", "done", "failed"]
HEARTBEAT_S = 5.0
BEGUN = ".attempt."
"""Begins the name of an attempt's folder until it holds what an attempt has from its first moment."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Content of status.json. Times are seconds since the epoch."""

    state: State
    reason: str = ""
    """One sentence where failed."""
    pid: int = 0
    host: str = ""
    started: float = 0.0
    """Of this attempt's first process."""
    heartbeat: float = 0.0
    ended: float | None = None
    phase: str = ""
    """What it does: a phase of `sage.records.clock.PHASES`, or in words (`loading the teacher`)."""
    step: int = 0
    """Training steps that are made."""
    steps: int = 0
    success: float | None = None
    """Latest evaluated success rate, for the launcher's table."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by phase, over all processes that worked on this attempt."""
    now: Now | None = None
    """How far it is with what it does, as of the heartbeat; None where it does nothing any more."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of a run that is done: the digests of its records and of the code that ran (`sage.records.seal`)."""


def parse_status(data: Mapping[str, Any], path: Path) -> RunStatus:
    """Content of the status.json at `path`; keys of a newer version are left out. Raises Unreadable."""
    from pydantic import ValidationError

    try:
        # From JSON: a strict dataclass takes no dict in Python.
        status = _status_of().validate_json(json.dumps(dict(data)), strict=True)
        counts = {"pid": status.pid, "step": status.step, "steps": status.steps, **status.seconds}
        if below := [name for name, value in counts.items() if value < 0]:
            raise Unreadable(f"{path} is not as this version writes it: {below[0]} is negative.")
        return status
    except ValidationError as error:
        first = error.errors()[0]
        missing = first["type"].startswith("missing")
        given = "missing" if missing else repr(str(first["input"])[:40])
        where = ".".join(map(str, first["loc"]))
        raise Unreadable(f"{path} is not as this version writes it: {where} is {given}.") from error


@cache
def _status_of() -> TypeAdapter[RunStatus]:
    """Made once: it takes milliseconds, and there may be a thousand runs."""
    from pydantic import TypeAdapter

    return TypeAdapter(RunStatus)


class RunDir:
    """One attempt's folder. Safe for one writing process, its owner, and any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._activity: Activity | None = None

    @property
    def attempt(self) -> int:
        """Its number; 0 for a folder of another name."""
        tail = self.path.name.removeprefix("attempt_")
        return int(tail) if tail.isascii() and tail.isdigit() else 0

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def identity(self) -> Identity:
        """Raises Unreadable; `sage.records.reader` says more about a folder that may be damaged."""
        data = read_object(self.path / "run.json") or {}
        try:
            return Identity(data["fields"], data["manifest_digest"], data["schema_version"])
        except KeyError as error:
            raise Unreadable(f"{self.path / 'run.json'} is missing or has no {error}.") from error

    def status(self) -> RunStatus | None:
        """None where nobody has started it yet, and where the file says nothing (`sage.records.reader`)."""
        try:
            data = read_object(self.path / "status.json")
            return None if data is None else parse_status(data, self.path / "status.json")
        except Unreadable:
            return None

    def is_at_work(self, status: RunStatus | None = None) -> bool:
        """Whether a process works on it (`sage.records.owner` says how that is told). Waits for nothing."""
        status = status or self.status()
        if status is None or status.state != "running":
            return False
        owner = owner_of(self.path)
        process = owner.process if owner else Process(status.host, status.pid)
        return at_work(self.path, process, status.heartbeat)

    def start(self, steps: int = 0) -> RunStatus:
        """Take it for this process and mark it as running; progress and times of an earlier one are kept."""
        take(self.path)
        now, earlier = time.time(), self.status()
        return self._set(
            replace(
                earlier or RunStatus("running", started=now),
                state="running",
                reason="",
                pid=os.getpid(),
                host=platform.node(),
                heartbeat=now,
                ended=None,
                now=None,
                steps=steps,
            )
        )

    def beat(self, **progress: Any) -> None:
        """Renew the heartbeat, with what is done now; `progress` sets phase, step, success or seconds."""
        now = self._activity.now() if self._activity else None
        if now is not None:
            progress = {"phase": now.phase, "now": now} | progress
        with self._lock, writing(self.path):
            status = self.status()
            if status is None or status.state == "failed" or (status.state == "done" and now is None):
                return
            self._write_status(replace(status, heartbeat=time.time(), **progress), durable=False)

    def at_rest(self) -> None:
        """The process of a run that is done does nothing more for it (`beat` has said what it did)."""
        with self._lock, writing(self.path):
            status = self.status()
            if status is not None and status.now is not None:
                self._write_status(replace(status, phase="", now=None), durable=False)

    @contextmanager
    def heartbeat(self, activity: Activity | None = None, every_s: float | None = None) -> Iterator[None]:
        """Beat from a thread while the block runs, however long one step takes, and tell who listens to
        `activity`; a run that has been taken over stops as by a signal, with `TakenOver`."""
        self._activity = activity

        def goes_on() -> bool:
            try:
                self.beat()
                if activity is not None:
                    activity.tell()
            except TakenOver as error:
                stop_with(error)
                return False
            except OSError:  # a full disk: the run's own writes say so
                pass
            return True

        try:
            with repeated(goes_on, HEARTBEAT_S if every_s is None else every_s, "heartbeat"):
                yield
        finally:
            self._activity = None

    def done(self, **progress: Any) -> None:
        """The run is complete: the last thing that is written, after the tables, whose digests it holds."""
        check(self.path)
        identity = self.identity()
        sealed = digests(self.path, identity.fields.get("plugins", ()))
        self._end("done", "", {"sha256": sealed} | progress)
        run_ledger.append(
            self.path.parent.parent,
            "done",
            identity.digest,
            run=identity.run,
            attempt=self.attempt,
            records=run_ledger.records_digest(sealed),
        )

    def fail(self, reason: str, **progress: Any) -> None:
        """The run stopped; `reason` is one sentence. Works on a full disk too."""
        self._end("failed", reason, progress)

    def log(self, line: str) -> None:
        """Append one line to log.txt."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        text = redact(f"{stamp} {line}\n").encode(errors="backslashreplace")
        with writing(self.path), (self.path / "log.txt").open("ab") as file:
            file.write(text)

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file atomically."""
        with writing(self.path):
            write_atomic(self.path / name, json.dumps(data, indent=1, ensure_ascii=False) + "\n")

    def fail_orphan(self, pid: int, reason: str) -> None:
        """For a parent: mark what its child `pid` has left running, unless another process has it by now."""
        if is_orphan_of(self.path, pid):
            self.fail(reason)

    def _end(self, state: State, reason: str, progress: dict[str, Any]) -> None:
        now = time.time()
        status = self.status() or RunStatus("running", pid=os.getpid(), host=platform.node(), started=now)
        status = replace(status, state=state, reason=redact(reason), heartbeat=now, ended=now, now=None)
        self._set(replace(status, **progress))

    def _set(self, status: RunStatus) -> RunStatus:
        with self._lock, writing(self.path):
            self._write_status(status, durable=True)
        return status

    def _write_status(self, status: RunStatus, durable: bool) -> None:
        text = json.dumps(asdict(status), indent=1) + "\n"
        try:
            write_atomic(self.path / "status.json", text, durable=durable)
        except OSError as error:
            if status.state != "failed" or error.errno not in FULL:
                raise
            overwrite(self.path / "status.json", text)


def new_attempt(runs_dir: Path, identity: Identity, config: RunConfig) -> RunDir:
    """Make the next attempt's folder; of several processes that try at once each gets its own.

    It is there with run.json and config.yaml or not at all: what a kill or a full disk has cut short has
    another name and is no attempt.
    """
    folder = Path(runs_dir) / identity.run
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((RunDir(path).attempt for path in folder.iterdir()), default=0)
    begun = folder / f"{BEGUN}{os.getpid()}.{threading.get_ident()}"
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir()
    try:
        write_atomic(begun / "config.yaml", config_yaml(config))
        RunDir(begun).write_json("run.json", identity.to_json())
        while True:
            try:  # never onto a folder that holds anything
                begun.rename(folder / f"attempt_{number}")
                break
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                number += 1
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
    run = RunDir(folder / f"attempt_{number}")
    forget(run.path)
    return run


def config_yaml(config: RunConfig) -> str:
    """The complete config as YAML, secrets in addresses blanked."""
    import yaml

    data = redact_data(config.model_dump(mode="json"))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)

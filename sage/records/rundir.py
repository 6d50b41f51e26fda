"""Run directories: `runs/<digest12>/attempt_<n>/`, the digest that of `sage.records.identity`.

In an attempt's folder:
    run.json         identity: digest, fields, schema version, manifest digest, what is no result
    config.yaml      the complete resolved config
    status.json      state, reason, heartbeat, progress; replaced atomically
    provenance.json  and code.diff: which code, packages and machine
    parts/, *.parquet, summary.json, log.txt, checkpoints/, mlflow.json
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sage.config import RunConfig
from sage.records.identity import Identity

State = Literal["running", "done", "failed"]
HEARTBEAT_S = 5.0


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
    step: int = 0
    steps: int = 0
    success: float | None = None
    """Latest evaluated success rate, for the launcher's table."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by phase, over all processes that worked on this attempt."""

    def is_alive(self, stale_after_s: float = 60.0) -> bool:
        """True where a process still works on it: running, beating, and not gone from this host."""
        if self.state != "running" or time.time() - self.heartbeat > stale_after_s:
            return False
        return self.host != platform.node() or _pid_exists(self.pid)


class RunDir:
    """One attempt's folder. Safe for one writing process and any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    @property
    def attempt(self) -> int:
        return int(self.path.name.removeprefix("attempt_"))

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def identity(self) -> Identity:
        data = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return Identity(data["fields"], data["manifest_digest"], data["schema_version"])

    def status(self) -> RunStatus | None:
        """None where nobody has started it yet."""
        try:
            return RunStatus(**json.loads((self.path / "status.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def start(self, steps: int = 0) -> RunStatus:
        """Mark as running by this process; progress and times of an earlier process are kept."""
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
                steps=steps,
            )
        )

    def beat(self, **progress: Any) -> None:
        """Renew the heartbeat; `progress` sets phase, step, success or seconds."""
        with self._lock:
            status = self.status()
            if status is None or status.state != "running":
                return
            self._write_status(replace(status, heartbeat=time.time(), **progress), durable=False)

    @contextmanager
    def heartbeat(self, every_s: float = HEARTBEAT_S) -> Iterator[None]:
        """Beat from a thread while the block runs, however long one step takes."""
        stop = threading.Event()

        def beating() -> None:
            while not stop.wait(every_s):
                self.beat()

        thread = threading.Thread(target=beating, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def done(self, **progress: Any) -> None:
        """The run is complete: the last thing that is written, after the tables."""
        self._end("done", "", progress)

    def fail(self, reason: str, **progress: Any) -> None:
        """The run stopped; `reason` is one sentence."""
        self._end("failed", reason, progress)

    def log(self, line: str) -> None:
        """Append one line to log.txt."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {line}\n")

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file atomically."""
        write_atomic(self.path / name, json.dumps(data, indent=1, ensure_ascii=False) + "\n")

    def _end(self, state: State, reason: str, progress: dict[str, Any]) -> None:
        now = time.time()
        status = self.status() or RunStatus("running", pid=os.getpid(), host=platform.node(), started=now)
        self._set(replace(status, state=state, reason=reason, heartbeat=now, ended=now, **progress))

    def _set(self, status: RunStatus) -> RunStatus:
        with self._lock:
            self._write_status(status, durable=True)
        return status

    def _write_status(self, status: RunStatus, durable: bool) -> None:
        text = json.dumps(asdict(status), indent=1) + "\n"
        write_atomic(self.path / "status.json", text, durable=durable)


def attempts(runs_dir: Path, identity: Identity) -> list[RunDir]:
    """Every attempt of this run, oldest first; raises ValueError where the id belongs to another digest."""
    folder = Path(runs_dir) / identity.run
    found = sorted(folder.glob("attempt_*/run.json"), key=lambda path: RunDir(path.parent).attempt)
    for path in found:
        digest = json.loads(path.read_text(encoding="utf-8"))["digest"]
        if digest != identity.digest:
            raise ValueError(f"{path.parent} belongs to run {digest}, not to {identity.digest}.")
    return [RunDir(path.parent) for path in found]


def new_attempt(runs_dir: Path, identity: Identity, config: RunConfig) -> RunDir:
    """Make the next attempt's folder; of several processes that try at once each gets its own."""
    folder = Path(runs_dir) / identity.run
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((RunDir(path).attempt for path in folder.glob("attempt_*")), default=0)
    while True:
        try:
            (folder / f"attempt_{number}").mkdir()
            break
        except FileExistsError:
            number += 1
    run = RunDir(folder / f"attempt_{number}")
    write_atomic(run.path / "config.yaml", config_yaml(config))
    run.write_json("run.json", identity.to_json())
    return run


def config_yaml(config: RunConfig) -> str:
    """The complete config as YAML, passwords inside URIs blanked."""
    import yaml

    from sage.records.provenance import redact

    data = config.model_dump(mode="json")
    data["tracking"]["uri"] = redact(data["tracking"]["uri"])
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def write_atomic(path: Path, text: str, durable: bool = True) -> None:
    """Replace a file so that a reader sees the old or the new content, also after a kill or a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def _pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

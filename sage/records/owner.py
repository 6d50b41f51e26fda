"""Who may write into an attempt: the process whose token is in `owner.json`, and nobody else.

Invariant: an attempt has one history. `take` writes a fresh token, and from then on whoever held an older
one stops with `TakenOver` at its next write. Every write that counts (status, a batch of the tables, a
checkpoint, a log line, the summary) is made inside `writing`, which holds the attempt's lock and has read the
token, so that a process suspended between the question and the rename cannot come back and write over the
records of another.

A process of this machine is asked for by number and start, so it keeps its run however old its heartbeat is:
suspended for an hour (a laptop asleep, Ctrl-Z), it goes on where it was. Of a process elsewhere only the
heartbeat is seen; it is gone when that has stood still for `LEASE_S` seconds of the *reader's* clock.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sage.locks import locked
from sage.records.atomic import write_atomic
from sage.records.files import read_object
from sage.records.process import Process
from sage.signals import defer_signals

OWNER = "owner.json"
LEASE_S = 60.0
PATIENCE_S = 30.0
"""How long a start waits for a lock that is held for milliseconds, unless its holder is suspended."""


class TakenOver(Exception):
    """The attempt is another process's now, or its folder has gone; one sentence. Nothing more is written."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Content of owner.json."""

    token: str
    process: Process


@dataclass(slots=True)
class _Hold:
    """What this process holds of one attempt: `depth` counts the nested `writing` blocks of one thread."""

    token: str
    thread: threading.RLock = field(default_factory=threading.RLock)
    depth: int = 0


@dataclass(frozen=True, slots=True)
class _Sight:
    """A heartbeat as it was last seen, when (our own monotonic clock), and whether it had changed then."""

    beat: float
    at: float
    changed: bool


_held: dict[str, _Hold] = {}
_seen: dict[str, _Sight] = {}


def take(folder: Path) -> None:
    """Make this process the owner. The caller has seen, under the run's lock, that nobody else is at work."""
    owner = Owner(secrets.token_hex(8), Process.here())
    with locked(folder / ".lock", PATIENCE_S):
        write_atomic(folder / OWNER, json.dumps(asdict(owner)) + "\n")
        _held[_key(folder)] = _Hold(owner.token)


def forget(folder: Path) -> None:
    """A folder that was just made is nobody's, whatever lay at its path before."""
    _held.pop(_key(folder), None)


def owner_of(folder: Path) -> Owner | None:
    """None where nobody has taken it, or where the file says nothing."""
    try:
        data = read_object(folder / OWNER) or {}
        process = data["process"]
        texts = {name: str(process[name]) for name in ("host", "start", "boot", "namespace")}
        return Owner(str(data["token"]), Process(pid=int(process["pid"]), **texts))
    except (ValueError, TypeError, KeyError):
        return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write into an attempt; raises TakenOver where this process has held it and does no longer.

    A folder that this process never took (a test's, a tool's) is written as it is. A signal waits until then.
    """
    hold = _held.get(_key(folder))
    if hold is None:
        yield
        return
    with _no_signal(), hold.thread:
        check(folder)  # before anything is made where the folder was
        with locked(folder / ".lock", LEASE_S) if not hold.depth else nullcontext():
            check(folder)
            hold.depth += 1
            try:
                yield
            finally:
                hold.depth -= 1


def check(folder: Path) -> None:
    """Raises TakenOver where this process has held the attempt and does no longer."""
    hold = _held.get(_key(folder))
    if hold is None:
        return
    owner = owner_of(folder)
    if owner is not None and owner.token == hold.token:
        return
    if not folder.is_dir():
        raise TakenOver(
            f"{folder} has gone: moved or removed while this process worked in it; nothing more is written. "
            "Type the same line again where the runs are now: it goes on from the newest checkpoint there."
        )
    who = "nobody" if owner is None else f"pid {owner.process.pid} on {owner.process.host}"
    raise TakenOver(
        f"{folder} belongs to another process now ({who}); this one has stopped and writes nothing more."
    )


def at_work(folder: Path, process: Process, beat: float) -> bool:
    """Whether the process of a running attempt still works, or is suspended. `beat` is its heartbeat.

    Of a process elsewhere nobody can tell at once: it counts as at work until its heartbeat has been the same
    for `LEASE_S` since this process first looked.
    """
    state = process.state()
    if state == "gone" or (state != "elsewhere" and process.start):
        return state != "gone"
    key, now = _key(folder), time.monotonic()
    if key not in _seen:
        _seen[key] = _Sight(beat, now, changed=False)
    elif _seen[key].beat != beat:
        _seen[key] = _Sight(beat, now, changed=True)
    return now - _seen[key].at < LEASE_S


def seen_beating(folder: Path) -> bool:
    """Whether `at_work` has seen the heartbeat change, or need not look at it."""
    return _key(folder) not in _seen or _seen[_key(folder)].changed


def is_orphan_of(folder: Path, pid: int) -> bool:
    """For a parent whose child has ended: the attempt is still that child's, and nobody works in it."""
    owner = owner_of(folder)
    return owner is None or (owner.process.pid == pid and owner.process.state() in ("gone", "elsewhere"))


def _no_signal() -> AbstractContextManager[None]:
    here = threading.current_thread() is threading.main_thread()
    return defer_signals() if here else nullcontext()


def _key(folder: Path) -> str:
    return os.path.abspath(folder)

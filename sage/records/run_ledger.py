"""`runs/ledger.jsonl`: one line for every start and end of a run below `runs/`, every freeze of a plan, and
every look at its runs while they are made.

Only ever appended to, by any number of processes. Each line carries the sha256 of the line before, so that a
line that was changed, removed or put in between shows. Whoever can write the file can also write all of it
anew: it is no lock against a forger. It makes honest work provable and slips visible.

A line is one JSON object: `time` (ISO 8601, UTC), `event` (start, resume, done, freeze, look), `digest` (the
run's identity or the plan's sha256), `before` (sha256 of the line before, empty in the first one), and
    start, resume    run, attempt
    done             run, attempt, records (sha256 of the digests in status.json)
    freeze           plan (its file's name)
    look             plan, seeds (how many were complete), planned, decided, seen (a row per difference)
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from sage.config.plain import canonical_json

NAME = "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class RunLedger:
    """What a ledger says. `problems` has one sentence for everything that is wrong with the file."""

    entries: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()

    def of(self, *events: str) -> list[dict[str, Any]]:
        """The entries of these events, oldest first."""
        return [entry for entry in self.entries if entry["event"] in events]


def append(folder: Path, event: str, digest: str, **fields: Any) -> dict[str, Any]:
    """Add one line to the ledger in `folder` (that of the runs), on disk when this returns; the entry."""
    from sage.locks import locked

    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{NAME}.lock"), (folder / NAME).open("ab+") as file:
        file.seek(0)
        old = file.read()
        last = old.rstrip(b"\n").rsplit(b"\n", 1)[-1]
        # The time is taken under the lock, so that the lines are in its order.
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "digest": digest,
            **fields,
            "before": _sha256(last),
        }
        torn = bool(old) and not old.endswith(b"\n")
        file.write(b"\n" * torn + canonical_json(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return entry


def read(folder: Path) -> RunLedger:
    """The ledger in `folder`; empty where there is none. Reads what can be read of a damaged one."""
    try:
        lines = (folder / NAME).read_bytes().splitlines()
    except FileNotFoundError:
        return RunLedger()
    except OSError as error:
        return RunLedger(problems=(f"{NAME} cannot be read: {error.strerror}.",))
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    before = b""
    for number, line in enumerate(lines, 1):
        entry = _parsed(line)
        if entry is None:
            problems.append(
                f"Line {number} of {NAME} is no whole entry: it was cut off by a process that ended while it "
                "wrote, or changed."
            )
        else:
            if entry["before"] != _sha256(before):
                problems.append(
                    f"Line {number} of {NAME} does not follow the line before it: lines were changed, "
                    "removed or put in there."
                )
            entries.append(entry)
        before = line
    problems += [
        f"{NAME} has {later['event']} of {later['digest'][:12]} at {later['time']} after a line of "
        f"{earlier['time']}: the clock was set back."
        for earlier, later in pairwise(entries)
        if later["time"] < earlier["time"]
    ]
    return RunLedger(tuple(entries), tuple(problems))


def records_digest(digests: dict[str, str]) -> str:
    """One digest of the digests in status.json, as the line about a run's end carries it."""
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest() if line else ""


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None where the line is no whole entry."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not {"time", "event", "digest", "before"} <= set(entry):
        return None
    words = (entry.get(name, "") for name in ("time", "event", "digest", "before", "run", "records", "plan"))
    if not all(isinstance(word, str) for word in words) or not isinstance(entry.get("attempt", 0), int):
        return None
    try:
        zoned = datetime.fromisoformat(entry["time"]).tzinfo is not None
    except ValueError:
        return None
    return entry if zoned else None

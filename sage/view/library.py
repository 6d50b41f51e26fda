"""The attempts below the folders that were named, as they are now: found anew, read where they have changed.

Invariant: a folder that cannot be used stops no other. It is an entry with a note where it is an attempt at
all, else a note of the whole.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from sage.errors import reason_of
from sage.records.below import attempts_below
from sage.records.intervals import wilson
from sage.records.reader import Attempt, open_attempt
from sage.records.rundir import RunStatus
from sage.records.tables import DamagedRecords, read
from sage.signals import told

WATCHED = ("run.json", "status.json", "summary.json", "provenance.json", "parts", "episodes.parquet")
"""What tells that an attempt is no longer what it was."""
_TABLES = WATCHED.index("parts")
"""Those from here on change where a batch is recorded, the others with every heartbeat."""
PATIENCE_S = 1.0
"""Folders are looked for again after so long."""
COUNTING_S = 0.5
"""How long one look may count the wins of runs without a summary; the others wait for the next look."""

Signature = tuple[tuple[int, int] | None, ...]


@dataclass(slots=True)
class Entry:
    """One attempt: what a line of the list of runs shows."""

    key: str
    path: Path
    where: str
    attempt: Attempt
    signature: Signature
    rates: list[dict[str, Any]] | None = None
    """Each evaluation of each split, by step; None where nobody has counted yet."""
    notes: list[str] = field(default_factory=list)


class Library:
    """Safe for several threads. `refresh` looks at the disk; everything else answers of what it has seen."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(roots)
        self.notes: list[str] = []
        self.version = ""
        self._entries: dict[Path, Entry] = {}
        self._by_key: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._looked = 0.0

    def refresh(self, patience_s: float = PATIENCE_S) -> None:
        """Look again, unless that was done less than `patience_s` ago."""
        with self._lock:
            if self._looked and time.monotonic() - self._looked < patience_s:
                return
            self._look()
            self._count(time.monotonic() + COUNTING_S)
            self._looked = time.monotonic()

    def entries(self) -> list[Entry]:
        """Every attempt, in the order of the folders."""
        return list(self._by_key.values())

    def entry(self, key: str) -> Entry:
        """Raises KeyError for an attempt that is not there."""
        return self._by_key[key]

    def _look(self) -> None:
        found: dict[Path, Entry] = {}
        notes: list[str] = []
        for root in self.roots:
            paths, said = attempts_below(root)
            notes += said
            if not paths and not said:
                notes.append(f"{root} has no records of runs.")
            for path in paths:
                if path not in found:
                    found[path] = self._entry(path, root)
        self._entries, self.notes = found, notes
        self._by_key = _named(found.values())
        text = repr([(str(path), entry.signature) for path, entry in found.items()] + notes)
        self.version = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]

    def _entry(self, path: Path, root: Path) -> Entry:
        signature = _signature(path)
        known = self._entries.get(path)
        if known is not None and known.signature == signature:
            return known
        attempt = open_attempt(path, tables=False)
        entry = Entry("", path, _relative(path, root), attempt, signature, notes=list(attempt.notes))
        if attempt.identity is None and not attempt.notes:
            entry.notes.append(f"{path} has no run.json: what it was told is not known.")
        is_done = attempt.status is not None and attempt.status.state == "done"
        if is_done and signature[_TABLES:] == (None, None):
            entry.notes.append(f"{path} says that it is done, and has no table of episodes.")
        if attempt.summary is not None:
            entry.rates = rates_of_summary(attempt.summary)
        elif known is not None and known.signature[_TABLES:] == signature[_TABLES:]:
            entry.rates = known.rates
        return entry

    def _count(self, until: float) -> None:
        """The rates of those that have no summary (yet), as long as there is time."""
        for entry in self._entries.values():
            if entry.rates is None and time.monotonic() < until:
                try:
                    entry.rates = rates_of_tables(entry.path)
                except (DamagedRecords, FileNotFoundError, OSError, pa.ArrowException) as error:
                    entry.rates = []
                    entry.notes.append(reason_of(error))


def _named(entries: Any) -> dict[str, Entry]:
    """By key: run and attempt, and where that is there twice, some of its path's digest."""
    named: dict[str, Entry] = {}
    for entry in entries:
        key = f"{entry.path.parent.name}.{entry.attempt.number}"
        if key in named:
            key += "." + hashlib.sha256(os.fsencode(entry.path)).hexdigest()[:8]
        entry.key = key
        named[key] = entry
    return named


def _signature(path: Path) -> Signature:
    signature: list[tuple[int, int] | None] = []
    for name in WATCHED:
        try:
            found = os.stat(path / name)
            signature.append((found.st_mtime_ns, found.st_size))
        except OSError:
            signature.append(None)
    return tuple(signature)


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root.parent)) if path.is_relative_to(root.parent) else str(path)


def rates_of_summary(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of summary.json's splits."""
    return [
        rate_row(split["split"], rate.get("step", 0), rate.get("won", 0), rate["n"], rate.get("not_ok", 0))
        | {"sources": [str(source) for source in split.get("sources", ())]}
        for split in summary["splits"]
        for rate in split["rates"]
    ]


def rates_of_tables(folder: Path) -> list[dict[str, Any]]:
    """Of the episodes table, whether or not the run has ended."""
    table = read(folder, "episodes", ["phase", "step", "split", "ok", "won", "source"])
    counts: dict[tuple[str, int], list[int]] = {}
    sources: dict[str, set[str]] = {}
    columns = [table.column(name).to_pylist() for name in table.column_names]
    for phase, step, split, ok, won, source in zip(*columns, strict=True):
        if phase == "eval":
            count = counts.setdefault((split, step), [0, 0, 0])
            count[0] += bool(ok and won)
            count[1] += bool(ok)
            count[2] += not ok
            sources.setdefault(split, set()).update([source] if source else [])
    return [
        rate_row(split, step, *count) | {"sources": sorted(sources[split])}
        for (split, step), count in sorted(counts.items())
    ]


def rate_row(split: str, step: int, won: int, n: int, not_ok: int) -> dict[str, Any]:
    """One evaluation with Wilson's 95 % interval: this checkpoint, on games like these."""
    known = isinstance(won, int) and 0 <= won <= n
    low, high = wilson(won, n) if known else (None, None)
    rate = won / n if known and n else None
    return {
        "split": split,
        "step": step,
        "won": won,
        "n": n,
        "not_ok": not_ok,
        "rate": rate,
        "low": low,
        "high": high,
    }


def progress_of(entry: Entry, now: float) -> dict[str, Any]:
    """State and time of an attempt. `state`: running, stopped (by a signal, or it says running, and nobody
    works on it), done, failed, or unknown."""
    status = entry.attempt.status
    if status is None:
        return {"state": "unknown", "reason": "", "step": 0, "steps": 0}
    state = told(status.state, status.reason)
    if state == "running" and not entry.attempt.folder.is_at_work(status):
        state = "stopped"
    return {
        "state": state,
        "reason": status.reason,
        "phase": status.phase,
        "now": asdict(status.now) if state == "running" and status.now else None,
        "step": status.step,
        "steps": status.steps,
        "started": status.started or None,
        "ended": status.ended,
        "heartbeat_age": max(0.0, now - status.heartbeat) if state == "running" else None,
        "left_s": _left(status) if state == "running" else None,
        "seconds": status.seconds,
    }


def _left(status: RunStatus) -> float | None:
    """Seconds of the steps that are left, each as long as those that were made, and the one that is made as
    it says itself; evaluations not counted."""
    spent = sum(seconds for phase, seconds in status.seconds.items() if phase not in ("evaluation", "other"))
    if not status.step or not spent or status.steps < status.step:
        return None
    left, now = status.steps - status.step, status.now
    if left and now is not None and now.step_left_s is not None:
        return spent / status.step * (left - 1) + now.step_left_s
    return spent / status.step * left


def config_of(entry: Entry) -> dict[str, Any] | None:
    """config.yaml as plain data; None where it is missing or none of ours."""
    import yaml

    path = entry.path / "config.yaml"
    try:
        if path.stat().st_size > 2**20:
            return None
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return None
    return data if isinstance(data, dict) else None

"""Scores in one SQLite file, kept across runs of one served model and shared by processes.

A score is looked up by the sha256 of (format, server's identity, ids, asked positions, k). The identity is
what the server says of itself. As other weights may come back under one name, the probe's numbers are kept
beside it, and a file whose probe differs is refused.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sage.errors import ConfigError
from sage.teacher.server.identity import Probe, Served
from sage.teacher.server.protocol import Likeliest

FORMAT = 1
"""Of the keys and of what is kept under them."""


class ScoreFile:
    """Raises ConfigError where the file cannot be opened, or holds the scores of another model."""

    def __init__(self, path: Path, served: Served, first: Probe) -> None:
        self._identity = served.identity
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, content BLOB NOT NULL)"
            )
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS servers (identity TEXT PRIMARY KEY, probe TEXT NOT NULL)"
            )
            self._database.execute(
                "INSERT OR IGNORE INTO servers VALUES (?, ?)",
                (self._identity, json.dumps([first.ids, first.top1, first.chosen])),
            )
            found = self._database.execute(
                "SELECT probe FROM servers WHERE identity = ?", (self._identity,)
            ).fetchone()
            difference = Probe(*json.loads(found[0])).differs(first)
        except (sqlite3.DatabaseError, OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"teacher.server.cache={path} cannot be opened ({error}); it is an SQLite file of this "
                "program's, or a path at which one can be made."
            ) from error
        if difference:
            raise ConfigError(
                f"teacher.server.cache={path} holds scores of another model that was called {served.model}"
                " too (a fixed text has other probabilities); name another file."
            )

    def get(self, ids: Sequence[int], positions: Sequence[int], k: int) -> Likeliest | None:
        """What was kept for these positions of a sequence; None where nothing was."""
        with self._lock:
            row = self._database.execute(
                "SELECT content FROM scores WHERE key = ?", (self._key(ids, positions, k),)
            ).fetchone()
        if row is None:
            return None
        flat = np.frombuffer(zlib.decompress(row[0]), dtype="<f8").reshape(len(positions), 2 * k + 1)
        return Likeliest(flat[:, :k].astype(np.int64), flat[:, k : 2 * k], flat[:, 2 * k])

    def put(self, ids: Sequence[int], positions: Sequence[int], k: int, known: Likeliest) -> None:
        """Keep the scores of these positions."""
        flat = np.concatenate([known.ids_TK.astype("<f8"), known.logprob_TK, known.chosen_T[:, None]], axis=1)
        content = zlib.compress(np.ascontiguousarray(flat, dtype="<f8").tobytes(), 1)
        with self._lock:
            self._database.execute(
                "INSERT OR IGNORE INTO scores VALUES (?, ?)", (self._key(ids, positions, k), content)
            )

    def close(self) -> None:
        self._database.close()

    def _key(self, ids: Sequence[int], positions: Sequence[int], k: int) -> str:
        key = [FORMAT, self._identity, list(ids), list(positions), k]
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()

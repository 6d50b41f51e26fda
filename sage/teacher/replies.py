"""The judge's raw replies in one SQLite file, kept across runs of one teacher and shared by processes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from sage.errors import ConfigError


class Known(NamedTuple):
    """A reply as the model gave it, and what it cost."""

    text: str
    tokens: int


class ReplyFile:
    """Replies by key. Raises ConfigError where the file cannot be opened or holds something else."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS replies "
                "(key TEXT PRIMARY KEY, text TEXT NOT NULL, tokens INTEGER NOT NULL)"
            )
            self._database.execute("SELECT key, text, tokens FROM replies LIMIT 1")
        except (sqlite3.DatabaseError, OSError) as error:
            raise ConfigError(
                f"launch.judge_cache={path} cannot be opened ({error}); it is an SQLite file of "
                "this program's, or a path at which one can be made."
            ) from error

    def get(self, key: str) -> Known | None:
        row = self._database.execute("SELECT text, tokens FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else Known(*row)

    def put(self, new: dict[str, Known]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        rows = [(key, *known) for key, known in new.items()]
        self._database.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", rows)
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()

"""What a page asks, answered in plain data: the same for the server and for the page in one file.

A place is an episode's key: phase, step, split, task, rollout. Texts are handed on as they are; the page
shows them as text and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sage.config.plain import flatten
from sage.errors import reason_of
from sage.records.schema import STEPS, TABLES
from sage.records.tables import DamagedRecords, arrow_schema, read, table_files
from sage.view.filters import condition
from sage.view.library import Entry, Library, config_of, progress_of
from sage.view.question import Questions
from sage.view.rows import Rows, plain

PLACE = ("phase", "step", "split", "task", "rollout")
PAGE = 200
"""Most rows of one answer."""
_RUN_COLUMNS = ("run", "method", "env", "source", "seed")
SHORT_TURN = (*PLACE, "turn", "label", "oracle", "failure", "action", "feedback", "effective_weight", "won")
"""Columns of a turn in a list of turns."""


class Answers:
    """Answers about the runs of a library. Safe for several threads."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.rows = Rows()

    def runs(self) -> dict[str, Any]:
        """Every attempt with its state and success so far."""
        self.library.refresh()
        now = time.time()
        entries = self.library.entries()
        return {
            "version": self.library.version,
            "runs": [line(entry, now) for entry in entries],
            "notes": self.library.notes,
            "waiting": sum(entry.rates is None for entry in entries),
        }

    def run(self, key: str) -> dict[str, Any]:
        """One attempt: its steps, its evaluations, its settings, and the moments at which it was played. A
        table that cannot be read is a note, and as if it were empty."""
        entry = self.library.entry(key)
        names = [name for name in STEPS if name not in _RUN_COLUMNS]
        tables, notes = {}, []
        for table in TABLES:
            try:
                tables[table] = (
                    read(entry.path, table) if table == "steps" else self.rows.keys(entry.path, table)
                )
            except (DamagedRecords, OSError, pa.ArrowException) as error:
                tables[table] = arrow_schema(table).empty_table()
                notes.append(reason_of(error))
        found = line(entry, time.time())
        return {
            **found,
            "notes": list(dict.fromkeys([*found["notes"], *notes])),
            "rates": entry.rates or [],
            "steps_table": {name: tables["steps"].column(name).to_pylist() for name in names},
            "moments": moments(tables["episodes"]),
            "settings": flatten(entry.attempt.identity.fields if entry.attempt.identity else {}),
            "tokens": {"rows": tables["tokens"].num_rows, "bytes": _size(entry.path, "tokens")},
            "turns": {"rows": tables["turns"].num_rows},
        }

    def episodes(
        self, key: str, where: Mapping[str, Any], offset: int = 0, limit: int = PAGE
    ) -> dict[str, Any]:
        """Episodes in the order of the run, those of some places or all."""
        path = self.library.entry(key).path
        found = self.rows.find(path, "episodes", where)
        rows = self.rows.take("episodes", found[offset : offset + limit])
        with_tokens = self._with_tokens(path, rows)
        return {
            "total": len(found),
            "offset": offset,
            "rows": [
                _without(row, _RUN_COLUMNS) | {"has_tokens": has}
                for row, has in zip(rows, with_tokens, strict=True)
            ],
        }

    def turns(self, key: str, filters: Sequence[str], offset: int = 0, limit: int = PAGE) -> dict[str, Any]:
        """Turns that all of the named filters let through, shortly."""
        path = self.library.entry(key).path
        found = self.rows.find(path, "turns", condition(filters))
        rows = self.rows.take("turns", found[offset : offset + limit], SHORT_TURN)
        return {"total": len(found), "offset": offset, "rows": rows}

    def episode(self, key: str, place: Mapping[str, Any]) -> dict[str, Any]:
        """One episode, its turns with what was decided and said about them, and its tokens where they are
        recorded. Raises KeyError where there is none."""
        entry = self.library.entry(key)
        heads = self.rows.take("episodes", self.rows.find(entry.path, "episodes", place))
        if not heads:
            raise KeyError(f"{place.get('task')} was not played there")
        given = {**place, "phase": [place["phase"], "given"]} if place["phase"] == "train" else place
        turns = self.rows.take("turns", self.rows.find(entry.path, "turns", given))
        tokens = self.rows.take("tokens", self.rows.find(entry.path, "tokens", place))
        questions = Questions(config_of(entry))
        for turn in turns:
            turn["judge_question"] = questions.of(heads[0], turns[0], turn)
        return {
            "episode": _without(heads[0], _RUN_COLUMNS),
            "turns": [_without(turn, (*_RUN_COLUMNS, *PLACE)) for turn in turns],
            "tokens": by_turn(tokens),
        }

    def _with_tokens(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        try:
            keys = self.rows.keys(path, "tokens")
        except (DamagedRecords, OSError, pa.ArrowException):  # the run's page says so
            return [False] * len(rows)
        if not keys.num_rows:
            return [False] * len(rows)
        places = pa.table({name: plain(keys.column(name)) for name in PLACE})
        known = {tuple(row.values()) for row in places.group_by(list(PLACE)).aggregate([]).to_pylist()}
        return [tuple(row[name] for name in PLACE) in known for row in rows]


def line(entry: Entry, now: float) -> dict[str, Any]:
    """What the list of runs says of an attempt."""
    identity = entry.attempt.identity
    record, fields = entry.attempt.record, identity.fields if identity else {}
    env = fields.get("env")
    return {
        "key": entry.key,
        "where": entry.where,
        "run": entry.path.parent.name,
        "attempt": entry.attempt.number,
        "method": str(fields.get("method", record.get("method", "unknown"))),
        "name": str(fields.get("name", record.get("name", "unknown"))),
        "env": str(env.get("name", "unknown")) if isinstance(env, dict) else "unknown",
        "seed": None if fields.get("seed") is None else str(fields["seed"]),
        "sources": sorted({source for rate in entry.rates or [] for source in rate.get("sources", [])}),
        "success": latest(entry.rates or []),
        "counted": entry.rates is not None,
        "notes": entry.notes,
        **progress_of(entry, now),
    }


def latest(rates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last evaluation of each split, with what it was before training."""
    found: dict[str, dict[str, Any]] = {}
    for rate in rates:
        before = found.get(rate["split"], {}).get("before")
        before = rate["rate"] if rate["step"] == 0 else before
        if rate["step"] >= found.get(rate["split"], {}).get("step", -1):
            found[rate["split"]] = {**rate, "before": before}
    return list(found.values())


def moments(episodes: pa.Table) -> list[dict[str, Any]]:
    """When and what was played: phase, step and split, with how many episodes and how many of them won."""
    played = pa.table(
        {
            **{name: plain(episodes.column(name)) for name in ("phase", "step", "split")},
            "n": pc.cast(pc.fill_null(episodes.column("ok"), False), pa.int64()),
            "won": pc.cast(pc.fill_null(episodes.column("won"), False), pa.int64()),
            "not_ok": pc.cast(pc.invert(pc.fill_null(episodes.column("ok"), True)), pa.int64()),
        }
    )
    keys = ["phase", "step", "split"]
    sums = played.group_by(keys).aggregate([(name, "sum") for name in ("n", "won", "not_ok")])
    rows = [{k.removesuffix("_sum"): v for k, v in row.items()} for row in sums.to_pylist()]
    return sorted(rows, key=lambda row: (row["step"], row["phase"] != "eval", row["split"]))


def by_turn(tokens: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Columns of the tokens of each turn, by its number."""
    turns: dict[str, dict[str, list[Any]]] = {}
    for token in tokens:
        columns = turns.setdefault(str(token["turn"]), {})
        for name, value in token.items():
            if name not in (*_RUN_COLUMNS, *PLACE, "task_type", "turn"):
                columns.setdefault(name, []).append(value)
    return turns


def _without(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _size(folder: Path, table: str) -> int:
    return sum(path.stat().st_size for path in table_files(folder, table) if path.exists())

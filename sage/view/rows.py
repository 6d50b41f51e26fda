"""Rows of a record table by number, read without the rest of it.

Invariant: what is asked of a table costs its key columns once (dictionaries of few words) and the row groups
that hold the rows that are shown, however many others there are. Nothing is kept of a file that has changed.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sage.errors import short_reason
from sage.records.tables import DamagedRecords, arrow_schema, table_files

KEYS: dict[str, tuple[str, ...]] = {
    "episodes": (
        *("phase", "step", "split", "task", "rollout"),
        *("task_type", "status", "ok", "won", "score", "turns"),
    ),
    "turns": (
        *("phase", "step", "split", "task", "rollout", "turn"),
        *("label", "oracle", "failure", "truncated", "format_slip", "weight", "effective_weight", "won"),
    ),
    "tokens": ("phase", "step", "split", "task", "rollout"),
    "steps": ("step",),
}
"""Columns that rows are looked for by."""

KEPT = 4_000_000
"""Rows whose key columns are kept, those of the files that were used last."""


@dataclass(frozen=True, slots=True)
class _File:
    """The key columns of one file, and where each of its row groups begins."""

    keys: pa.Table
    groups: tuple[int, ...]


class Rows:
    """Reads tables of any run folder. Safe for several threads."""

    def __init__(self, kept: int = KEPT) -> None:
        self._known: OrderedDict[Path, tuple[tuple[int, int], _File]] = OrderedDict()
        self._kept, self._rows = kept, 0
        self._lock = threading.Lock()

    def find(self, folder: Path, table: str, where: Mapping[str, Any]) -> list[tuple[Path, int]]:
        """(file, row in it) of the rows whose columns have one of the values (a list, or a single value;
        None: null), in the order of the run. Raises DamagedRecords and FileNotFoundError."""
        found: list[tuple[Path, int]] = []
        for path in table_files(folder, table):
            keys = self._file(path, table).keys
            if not keys.num_rows:  # `indices_nonzero` of no chunk at all ends the process (pyarrow 25)
                continue
            mask = _mask(keys, where)
            rows = range(keys.num_rows) if mask is None else pc.indices_nonzero(mask).to_pylist()
            found += [(path, row) for row in rows]
        return found

    def keys(self, folder: Path, table: str) -> pa.Table:
        """The key columns of a whole table."""
        pieces = [self._file(path, table).keys for path in table_files(folder, table)]
        empty = _keys_only(arrow_schema(table).empty_table(), table)
        return pa.concat_tables([empty, *pieces], promote_options="permissive").unify_dictionaries()

    def take(
        self, table: str, places: Sequence[tuple[Path, int]], columns: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows at places that `find` gave, all columns or some; a column that the file lacks is left
        out."""
        rows: list[dict[str, Any]] = []
        for path in dict.fromkeys(path for path, _ in places):
            wanted = [row for other, row in places if other == path]
            rows += self._read(path, table, wanted, columns)
        return rows

    def _read(
        self, path: Path, table: str, wanted: Sequence[int], columns: Sequence[str] | None
    ) -> list[dict[str, Any]]:
        starts = self._file(path, table).groups
        with _opened(path) as file:
            names = [n for n in file.schema_arrow.names if columns is None or n in columns]
            ends = [*starts[1:], file.metadata.num_rows]
            rows: list[dict[str, Any]] = []
            for group, (start, end) in enumerate(zip(starts, ends, strict=True)):
                inside = [row - start for row in wanted if start <= row < end]
                if inside:
                    rows += _group(file, group, names).take(pa.array(inside)).to_pylist()
        return rows

    def _file(self, path: Path, table: str) -> _File:
        stat = os.stat(path)
        signature = (stat.st_mtime_ns, stat.st_size)
        with self._lock:
            known = self._known.get(path)
            if known is not None and known[0] == signature:
                self._known.move_to_end(path)
                return known[1]
        with _opened(path) as file:
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            present = [name for name in KEYS[table] if name in file.schema_arrow.names]
            try:
                keys = file.read(columns=present)
            except (OSError, pa.ArrowException) as error:
                raise _damaged(path, error) from error
        starts = list(accumulate(sizes, initial=0))[:-1]
        made = _File(_keys_only(keys, table), tuple(starts))
        with self._lock:
            if (before := self._known.pop(path, None)) is not None:
                self._rows -= before[1].keys.num_rows
            self._known[path] = (signature, made)
            self._rows += made.keys.num_rows
            while self._rows > self._kept and len(self._known) > 1:
                _, (_, oldest) = self._known.popitem(last=False)
                self._rows -= oldest.keys.num_rows
        return made


def _keys_only(table: pa.Table, name: str) -> pa.Table:
    """Key columns, texts as numbers into a dictionary; a column that is not there is null."""
    schema = arrow_schema(name)
    columns = {}
    for key in KEYS[name]:
        kind = schema.field(key).type
        values = table.column(key) if key in table.column_names else pa.nulls(table.num_rows, kind)
        if pa.types.is_string(kind) and not pa.types.is_dictionary(values.type):
            values = pc.dictionary_encode(values.cast(pa.string()))
        columns[key] = values
    return pa.table(columns)


def _mask(keys: pa.Table, where: Mapping[str, Any]) -> Any:
    """True at the rows that are asked for; None where nothing is asked."""
    mask = None
    for name, wanted in where.items():
        column = keys.column(name)
        values = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        found = plain(column)
        known = pa.array([v for v in values if v is not None], type=found.type)
        one = pc.is_in(found, value_set=known)
        if None in values:
            one = pc.or_(one, pc.is_null(column))
        mask = one if mask is None else pc.and_(mask, one)
    return mask


def plain(column: Any) -> Any:
    """A key column's own values, in place of numbers into a dictionary."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _group(file: pq.ParquetFile, group: int, names: Sequence[str]) -> pa.Table:
    try:
        return file.read_row_group(group, columns=list(names))
    except (OSError, pa.ArrowException) as error:
        raise DamagedRecords(f"A table of the run cannot be read ({short_reason(error, 120)}).") from error


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> DamagedRecords:
    return DamagedRecords(f"{path} is not what was written ({short_reason(error, 120)}).")

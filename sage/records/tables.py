"""Turns, episodes and steps as Parquet: appended batch by batch, read the same way at any moment.

Invariant: a batch (one optimizer step, or one evaluation of one split) is on disk completely or not at
all, in all tables at once, and at most once. A batch is a folder `parts/<name>/` that is written beside
and renamed into place; writing the same batch again replaces it. `consolidate` makes one file per table
and removes the parts; while `parts/` exists, the parts are the truth.

Written by the main process of a run only. Read by the exporter, the terminal table and `analysis`.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sage.errors import short_reason
from sage.records.atomic import flush_to_disk
from sage.records.owner import writing
from sage.records.rows import Row
from sage.records.schema import CAME_LATER, RECORDS_FORMAT, RENAMED_COLUMNS, STEPS_ALONE, TABLES

if TYPE_CHECKING:
    import pandas as pd

_BATCH = re.compile(r"[0-9]{8}-(0-train|1-eval-.+)")
ROW_GROUP = 8_192
"""Rows of a file that are read together: who looks at one episode reads no more."""
_WAY_OUT = ": launch.on_existing=rerun begins another attempt beside it."
_ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a table, with the format version in its metadata."""
    fields = [pa.field(name, _ARROW[kind]) for name, (kind, _) in TABLES[table].items()]
    return pa.schema(fields, metadata={"sage_table": table, "sage_format": str(RECORDS_FORMAT)})


def to_arrow(table: str, rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table; raises ValueError for an unknown column or a value of the wrong type."""
    schema = arrow_schema(table)
    for name in {name for row in rows for name in row} - set(schema.names):
        near = difflib.get_close_matches(name, schema.names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"The table {table!r} has no column {name!r}.{hint}")
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        try:
            columns.append(pa.array(values, type=field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{table}.{field.name} must be {field.type}: {error}") from error
    return pa.table(columns, schema=schema)


class DamagedRecords(ValueError):
    """A table's file is not what was written; the message is one sentence that names it."""


class Tables:
    """The record tables of one run directory, for writing. Open it once per run; call `resume` first."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.parts = self.folder / "parts"

    def append_step(
        self,
        step: int,
        *,
        turns: Sequence[Row],
        episodes: Sequence[Row],
        row: Row,
        tokens: Sequence[Row] = (),
    ) -> None:
        """Record optimizer step `step` (1-based): its training episodes, their turns, its steps row, and the
        tokens of some."""
        if row.get("step") != step or any(r.get("step") != step - 1 for r in (*turns, *episodes, *tokens)):
            raise ValueError(f"Step {step} takes a steps row of step {step} and episodes of step {step - 1}.")
        batch = {"turns": turns, "episodes": episodes, "steps": [row], "tokens": tokens}
        self._write(f"{step:08d}-0-train", batch)

    def append_evaluation(
        self, step: int, split: str, *, turns: Sequence[Row], episodes: Sequence[Row]
    ) -> None:
        """Record the complete evaluation of `split` after `step` optimizer steps (0: before training)."""
        if any((r.get("step"), r.get("split")) != (step, split) for r in (*turns, *episodes)):
            raise ValueError(f"Every row of this evaluation must be of step {step} and split {split!r}.")
        self._write(_evaluation_name(step, split), {"turns": turns, "episodes": episodes})

    def evaluated(self, step: int, split: str) -> bool:
        """True where this evaluation is recorded completely, so that a resumed run need not repeat it."""
        return (self.parts / _evaluation_name(step, split)).is_dir()

    def resume(self, step: int) -> None:
        """Continue from the checkpoint after `step` optimizer steps: drop all that was recorded later.

        Kept are steps 1..step with their episodes, and evaluations made after at most `step` steps. Also
        right for a fresh folder (`resume(0)`).
        """
        with writing(self.folder):
            if not self.parts.exists() and (self.folder / "episodes.parquet").exists():
                self._split_into_parts()
            self.parts.mkdir(parents=True, exist_ok=True)
            for part in self.parts.iterdir():
                if part.name.startswith(".") or (_BATCH.fullmatch(part.name) and int(part.name[:8]) > step):
                    shutil.rmtree(part)
            for table in TABLES:
                (self.folder / f"{table}.parquet").unlink(missing_ok=True)

    def consolidate(self) -> None:
        """One Parquet file per table, then remove the parts. Safe to repeat and to be killed in."""
        with writing(self.folder):
            if not self.parts.exists():
                return
            write_consolidated(self.folder, self.folder)
            gone = self.folder / ".parts-done"
            shutil.rmtree(gone, ignore_errors=True)
            self.parts.rename(gone)
            shutil.rmtree(gone)

    def _write(self, name: str, tables: dict[str, Sequence[Row]]) -> None:
        batch = {table: to_arrow(table, rows) for table, rows in tables.items()}
        with writing(self.folder):
            self._write_arrow(name, batch)

    def _write_arrow(self, name: str, tables: dict[str, pa.Table], parts: Path | None = None) -> None:
        _write_batch(parts or self.parts, name, tables)

    def _split_into_parts(self) -> None:
        """Undo `consolidate`, so that a finished run can be continued from an earlier checkpoint."""
        tables = {table: self._whole(table) for table in TABLES}
        building = self.folder / ".parts-new"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        episodes = tables["episodes"]
        train_steps = {s + 1 for s in _distinct(episodes, "step", pc.field("phase") == "train")}
        for step in sorted(train_steps | _distinct(tables["steps"], "step")):
            chosen = (pc.field("phase") != "eval") & (pc.field("step") == step - 1)
            batch = {table: tables[table].filter(chosen) for table in ("turns", "episodes", "tokens")}
            batch["steps"] = tables["steps"].filter(pc.field("step") == step)
            self._write_arrow(f"{step:08d}-0-train", batch, building)
        evaluations = episodes.filter(pc.field("phase") == "eval").select(["step", "split"])
        for step, split in {(r["step"], r["split"]) for r in evaluations.to_pylist()}:
            chosen = (pc.field("phase") == "eval") & (pc.field("step") == step) & (pc.field("split") == split)
            batch = {table: tables[table].filter(chosen) for table in ("turns", "episodes")}
            self._write_arrow(_evaluation_name(step, split), batch, building)
        building.rename(self.parts)

    def _whole(self, table: str) -> pa.Table:
        """A consolidated table; without rows where the records are older than it."""
        path = self.folder / f"{table}.parquet"
        if table in CAME_LATER and not path.exists():
            return arrow_schema(table).empty_table()
        return _piece(path, None)


def write_aside(folder: Path, name: str, *, turns: Sequence[Row], episodes: Sequence[Row]) -> Path:
    """Write what belongs into no table to `set_aside/<name>/`, in the same columns; returns that folder."""
    aside = Path(folder) / "set_aside"
    tables = {"turns": to_arrow("turns", turns), "episodes": to_arrow("episodes", episodes)}
    with writing(folder):
        _write_batch(aside, name, tables)
    return aside / name


def read(folder: Path, table: str, columns: Iterable[str] | None = None) -> pa.Table:
    """A whole table of a finished, running or killed run, in the order of the run.

    A reader may meet the writer replacing or consolidating a batch; it then reads again.
    """
    wanted = list(columns) if columns is not None else None
    for _ in range(5):
        try:
            pieces = [_piece(path, wanted) for path in table_files(Path(folder), table)]
            break
        except FileNotFoundError:
            time.sleep(0.05)
    else:
        raise FileNotFoundError(f"The records in {folder} keep changing while they are read.")
    schema = arrow_schema(table)
    if wanted is not None:
        schema = pa.schema([schema.field(name) for name in wanted])
    try:
        return pa.concat_tables([schema.empty_table(), *pieces], promote_options="permissive")
    except pa.ArrowException as error:
        raise DamagedRecords(f"The {table} of {folder} are not of this version's form{_WAY_OUT}") from error


def _piece(path: Path, columns: list[str] | None) -> pa.Table:
    """One file of a table, its columns under today's names. Raises DamagedRecords."""
    if columns is not None:  # those that a file does not have are no error
        columns = columns + [old for old, new in RENAMED_COLUMNS.items() if new in columns]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            piece = file.read(columns=columns)
        return piece.rename_columns([RENAMED_COLUMNS.get(name, name) for name in piece.column_names])
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        why = short_reason(error, 120)
        raise DamagedRecords(f"{path} is not what was written ({why}){_WAY_OUT}") from error


def read_frame(folder: Path, table: str) -> pd.DataFrame:
    """As `read`, for pandas."""
    return read(folder, table).to_pandas()


def write_consolidated(folder: Path, target: Path) -> list[Path]:
    """Write `<target>/<table>.parquet` for every table of the run in `folder`; returns the paths."""
    paths = []
    for table in TABLES:
        path = Path(target) / f"{table}.parquet"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            pq.write_table(
                read(folder, table),
                temporary,
                compression="zstd",
                write_page_checksum=True,
                row_group_size=ROW_GROUP,
            )
            flush_to_disk(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        paths.append(path)
    flush_to_disk(Path(target))
    return paths


def _write_batch(parts: Path, name: str, tables: dict[str, pa.Table]) -> None:
    """A folder of tables that is there completely or not at all."""
    temporary = parts / f".{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for table, data in tables.items():
            path = temporary / f"{table}.parquet"
            pq.write_table(data, path, compression="zstd", write_page_checksum=True)
            flush_to_disk(path)
    except BaseException:  # a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    final = parts / name
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    flush_to_disk(parts)


def table_files(folder: Path, table: str) -> list[Path]:
    """The files of a table in the order of the run: one for each batch, or a single one."""
    parts = folder / "parts"
    if parts.exists():
        # Names begin with the step and sort in the order of the run: step n, then evaluations after it.
        # The name also says which tables it holds; asking the disk instead would hide a batch that vanishes.
        batches = sorted(part for part in parts.iterdir() if _BATCH.fullmatch(part.name))
        holds_steps = [batch for batch in batches if batch.name[9] == "0"]
        paths = [b / f"{table}.parquet" for b in (holds_steps if table in STEPS_ALONE else batches)]
        if table in CAME_LATER:  # a batch that has its turns and not this is older
            paths = [p for p in paths if p.exists() or not p.with_name("turns.parquet").exists()]
        return paths
    whole = folder / f"{table}.parquet"
    return [whole] if whole.exists() else []


def _evaluation_name(step: int, split: str) -> str:
    return f"{step:08d}-1-eval-{quote(split, safe='')}"


def _distinct(table: pa.Table, column: str, where: Any = None) -> set[int]:
    if where is not None:
        table = table.filter(where)
    return set(table.column(column).to_pylist())

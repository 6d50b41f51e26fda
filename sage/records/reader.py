"""The one reader of run folders: an attempt with what can be used of it, and a sentence for what cannot.

Invariant: nothing that lies in a folder stops the reading of the others. `attempt_dirs` lists attempts,
`open_attempt` reads one; a file that is empty, cut, foreign, of a newer version, a directory, a pipe or not
ours to read becomes an entry of `problems`. Claims, the table of runs, `analysis`, the export and commands
over records read here; `sage.records.below` finds the attempts under any folder.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import reason_of
from sage.records.files import Unreadable, read_object
from sage.records.identity import IDENTITY_VERSION, Identity
from sage.records.rundir import RunDir, RunStatus, parse_status
from sage.records.schema import CAME_LATER, RECORDS_FORMAT, RENAMED_COLUMNS, TABLES

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"attempt_([1-9][0-9]{0,8})")
_KEYS = ("run", "method", "env", "seed", "step")
"""Columns without which a table is not ours, whatever its version."""
_TYPED = (*_KEYS, "phase", "split", "task", "status", "ok", "won", "label", "weight")
"""Columns whose type is looked at: what a result is made of. Another writer's empty texts may be numbers."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt's folder as it was read. `problems` maps a file's name to its sentence; `identity` is None
    and `record` (run.json as it is) empty where run.json is missing or a problem, `status` likewise.
    """

    folder: RunDir
    number: int
    identity: Identity | None = None
    status: RunStatus | None = None
    record: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether a run can go on in it, or be skipped because of it."""
        return self.identity is not None and not {"run.json", "tables"} & set(self.problems)

    @property
    def notes(self) -> list[str]:
        return list(self.problems.values())


def attempt_number(path: Path) -> int | None:
    """The n of `attempt_<n>`; None for every other name (`attempt_1.bak`)."""
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else None


def attempt_dirs(home: Path) -> tuple[list[Path], list[str]]:
    """The attempts below `runs/<id>/` by number, and a note for whatever only looks like one."""
    found: dict[int, Path] = {}
    notes: list[str] = []
    try:
        names = sorted(os.listdir(home))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        return [], [f"{home} cannot be read: {error.strerror or error}."]
    for name in names:
        if not name.startswith("attempt"):
            continue
        number, path = attempt_number(Path(name)), home / name
        if number is None or not os.path.isdir(path):
            notes.append(f"{path} is no attempt (a folder attempt_<n>) and is left out.")
        else:
            found[number] = path
    return [found[number] for number in sorted(found)], notes


def open_attempt(path: Path, tables: bool = True) -> Attempt:
    """Read an attempt's folder; raises nothing. `tables`: look at whole tables too, where there are."""
    problems: dict[str, str] = {}

    def read(name: str) -> dict[str, Any] | None:
        try:
            return read_object(path / name)
        except Unreadable as error:
            problems[name] = str(error)
            return None

    identity = status = None
    record: dict[str, Any] = {}
    try:
        if (data := read("run.json")) is not None:
            identity, record = _identity(data, path / "run.json"), data
    except Unreadable as error:
        problems["run.json"] = str(error)
    try:
        if (data := read("status.json")) is not None:
            status = parse_status(data, path / "status.json")
    except Unreadable as error:
        problems["status.json"] = str(error)
    provenance = read("provenance.json") or {}
    for key in ("code", "models"):
        if not isinstance(provenance.get(key) or {}, dict):
            where = path / "provenance.json"
            problems["provenance.json"] = f"{where} is not as this version writes it ({key})."
            provenance = {}
    summary = read("summary.json")
    if summary is not None and not _is_summary(summary):
        problems["summary.json"] = f"{path / 'summary.json'} is not as this version writes it."
        summary = None
    if tables and (problem := tables_problem(path)):
        problems["tables"] = problem
    number = attempt_number(path) or 0
    return Attempt(RunDir(path), number, identity, status, record, provenance, summary, problems)


def tables_problem(folder: Path) -> str:
    """One sentence where the tables of a finished attempt cannot be what it has recorded, else nothing."""
    names: Iterable[Path] = [folder / f"{table}.parquet" for table in TABLES]
    if os.path.isdir(folder / "parts"):  # while they exist the parts are the truth
        return ""
    if not any(os.path.lexists(name) for name in names):
        return ""  # a story that records no table
    names = [name for name in names if name.stem not in CAME_LATER or os.path.lexists(name)]
    return next((problem for name in names if (problem := file_problem(name))), "")


def file_problem(path: Path) -> str:
    """One sentence where a table's file (`episodes.parquet`) cannot be what was recorded, else nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sage.records.tables import arrow_schema

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{path} is no file."
        schema = pq.read_schema(path)
        version = int((schema.metadata or {}).get(b"sage_format", RECORDS_FORMAT))
    except FileNotFoundError:
        return f"{path} is missing."
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or reason_of(error).rstrip('.')}."
    except (pa.ArrowException, ValueError):
        return f"{path} is cut or no Parquet file."
    if version > RECORDS_FORMAT:
        return f"{path} has record format {version}; this version reads up to {RECORDS_FORMAT}."
    return _columns_problem(path, schema, arrow_schema(path.stem))


def _columns_problem(path: Path, schema: pa.Schema, ours: pa.Schema) -> str:
    """One sentence where the columns of a table's file are not those of ours, else nothing."""
    names = {RENAMED_COLUMNS.get(name, name) for name in schema.names}
    missing = [name for name in _KEYS if name not in names]
    typed = [field for field in schema if field.name in _TYPED and field.name in ours.names]
    other = [field.name for field in typed if not _alike(field.type, ours.field(field.name).type)]
    strange = names - set(ours.names) if b"sage_table" in (schema.metadata or {}) else set()
    if strange:
        return f"{path} has columns that are none of ours: {', '.join(sorted(strange))[:200]}."
    if missing or other:
        wrong = ", ".join(missing + other)
        return f"{path} is no table of ours: its columns {wrong} are missing or of other types."
    return ""


def _alike(found: Any, ours: Any) -> bool:
    """Whether both are text, or both are numbers: pandas, say, writes whole numbers with gaps as floats."""
    from pyarrow import types

    def kind(one: Any) -> str:
        if types.is_integer(one) or types.is_floating(one) or types.is_boolean(one):
            return "number"
        return "text" if types.is_string(one) or types.is_large_string(one) else str(one)

    return types.is_null(found) or kind(found) == kind(ours)


def _identity(data: dict[str, Any], path: Path) -> Identity:
    version = data.get("identity_version")
    if isinstance(version, int) and version > IDENTITY_VERSION:
        raise Unreadable(f"{path} was written by a newer version (identity {version}); update this one.")
    fields, manifest, schema = (data.get(key) for key in ("fields", "manifest_digest", "schema_version"))
    if not (isinstance(fields, dict) and isinstance(manifest, str) and type(schema) is int):
        raise Unreadable(f"{path} is none of ours: fields, manifest_digest or schema_version is missing.")
    names = data.get("not_a_result", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unreadable(f"{path} is none of ours: not_a_result is no list of names.")
    identity = Identity(fields, manifest, schema)
    if odd := next(_odd_fields(data, fields), ""):
        raise Unreadable(f"{path} is none of ours: {odd} is of another type.")
    return identity


def _odd_fields(data: dict[str, Any], fields: dict[str, Any]) -> Iterator[str]:
    """Names of what the readers of records look into, where it is of another type than ours."""
    if not isinstance(data.get("digest", ""), str):
        yield "digest"
    for group in ("env", "student", "evaluation", "rollout", "trainer"):
        if not isinstance(fields.get(group, {}), dict):
            yield group
    for name in ("method", "name", "seed"):
        if not isinstance(fields.get(name, ""), str | int):
            yield name
    evaluation = fields.get("evaluation") if isinstance(fields.get("evaluation"), dict) else {}
    splits = (evaluation or {}).get("splits", [])
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        yield "evaluation.splits"


def _is_summary(summary: dict[str, Any]) -> bool:
    """Whether the parts that a table shows are there."""
    splits = summary.get("splits")
    return isinstance(splits, list) and all(
        isinstance(split, dict)
        and isinstance(split.get("split"), str)
        and isinstance(rates := split.get("rates"), list)
        and all(isinstance(rate, dict) and type(rate.get("n")) is int and "rate" in rate for rate in rates)
        and all(rate["rate"] is None or isinstance(rate["rate"], float | int) for rate in rates)
        for split in splits
    )

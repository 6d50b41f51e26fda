"""Records from run directories: the attempt of each run that counts, and what is to be said of the others.

Reads record format version 1 (`sage/records/schema.py`): `runs/<digest12>/attempt_<n>/` with `status.json`,
`run.json` (or `config.yaml`), `provenance.json`, `episodes.parquet`, `turns.parquet` and `steps.parquet`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.episodes import complete_episodes
from analysis.errors import Refusal
from analysis.records import NOTHING, TABLES, Records, concat
from analysis.touched import contradictions, touched_files, touched_identity
from sage.config.moved import modern_label
from sage.errors import short_reason
from sage.records.below import attempts_below
from sage.records.files import Unreadable
from sage.records.identity import pair_of, recipe_of, recorded_settings
from sage.records.reader import Attempt, file_problem, open_attempt
from sage.records.run_ledger import read as read_ledger
from sage.records.rundir import RunStatus
from sage.records.schema import RENAMED_COLUMNS


def load_directory(root: Path, tables: tuple[str, ...]) -> Records:
    """All runs below `root`: the last finished attempt of each digest, or its last attempt where none
    finished."""
    attempts, notes = attempts_below(root)
    if not attempts:
        said = f" {notes[0]}" if notes else ""
        raise Refusal(
            f"{root} holds no run: no attempt_<n> directory with a status.json or an episodes.parquet.{said}"
        )
    by_digest: dict[Path, list[Path]] = {}
    for attempt in attempts:
        by_digest.setdefault(attempt.parent, []).append(attempt)
    parts = [replace(NOTHING, notes=tuple(notes))]
    parts += [_load_run(chain, tables) for chain in by_digest.values()]
    for folder in sorted({path.parent.parent for path in attempts}):
        ledger = read_ledger(folder)
        parts.append(replace(NOTHING, ledger=ledger, notes=ledger.problems))
    return concat(parts)


def _load_run(chain: list[Path], tables: tuple[str, ...]) -> Records:
    """The attempts of one run, oldest first: one of them is read, the others are told of."""
    opened = [open_attempt(path, tables=False) for path in chain]
    states = [_state(one) for one in opened]
    finished = [index for index, state in enumerate(states) if state == "done"]
    chosen = finished[-1] if finished else len(chain) - 1
    part = load_attempt(chain[chosen], tables)
    row = part.runs.iloc[0]
    who = f"Run {row.run} ({row.method}, seed {row.seed})"
    earlier = [f"attempt {opened[i].number} {states[i]}" for i in range(chosen) if states[i] != "done"]
    notes = [f"{who} needed more than one attempt: {', '.join(earlier)}."] if earlier else []
    if len(finished) > 1:
        numbers = ", ".join(str(opened[i].number) for i in finished)
        notes.append(
            f"{who} was finished more than once (attempts {numbers}); the last one is in the numbers, "
            "and a result that was chosen among attempts confirms nothing."
        )
    others = {f"attempt {opened[i].number}": states[i] for i in range(len(chain)) if i != chosen}
    return replace(part, notes=(*notes, *part.notes), others={row.run: others} if others else {})


def _state(attempt: Attempt) -> str:
    if {"status.json", "run.json"} & set(attempt.problems):
        return "damaged"
    return attempt.status.state if attempt.status else "no status"


@dataclass
class _Reading:
    """One attempt while it is read: what it holds, whether it counts, and if not, why."""

    directory: Path
    attempt: Attempt
    state: str
    used: bool
    reason: str
    problems: dict[str, str]
    flat: dict[str, Any]
    """Its settings, flattened."""
    frames: dict[str, pd.DataFrame]
    some: pd.DataFrame
    """A table that says whose rows it holds; empty where there is none to be believed."""
    odd: list[str] = field(default_factory=list)
    """What shows that files are not as the run wrote them."""
    wrong: list[str] = field(default_factory=list)
    """Where its tables contradict its run.json."""

    @property
    def place(self) -> str:
        """`<digest12>/attempt_<n>`."""
        name, parent = self.directory.name, self.directory.parent.name
        return f"{parent if name.startswith('attempt_') else name}/{name}"

    def drop(self, reason: str) -> None:
        """Its tables do not count."""
        self.used, self.reason, self.frames = False, reason, {}


def load_attempt(directory: Path, tables: tuple[str, ...]) -> Records:
    """One attempt directory. Rows are read only where the run is done."""
    reading = _read(directory, tables)
    _check(reading, tables)
    attempt, frames, provenance = reading.attempt, reading.frames, reading.attempt.provenance
    row = _run_row(reading)
    run, said = row["run"], (*reading.odd, *reading.wrong)
    return Records(
        runs=pd.DataFrame([row]),
        **{name: frames.get(name, pd.DataFrame()) for name in TABLES},
        configs={run: reading.flat},
        provenance={run: provenance},
        touched={run: said} if said else {},
        digests={run: dict(attempt.status.sha256) if attempt.status else {}},
        pairs={run: _pair(attempt.record, reading.flat, provenance)},
        notes=(
            *reading.problems.values(),
            *(f"Records of run {run} ({row['method']}, seed {row['seed']}): {odd}." for odd in reading.odd),
        ),
    )


def _read(directory: Path, tables: tuple[str, ...]) -> _Reading:
    """What the files hold; a damaged one takes the attempt out of the numbers with its sentence."""
    attempt = open_attempt(directory, tables=False)
    state, problems, status = _state(attempt), dict(attempt.problems), attempt.status
    config: dict[str, Any] = {}
    frames: dict[str, pd.DataFrame] = {}
    try:
        config = {} if attempt.record else _read_config(directory / "config.yaml")
        frames = {name: _read_table(directory, name) for name in tables if state == "done"}
    except Unreadable as error:
        problems["records"], state = str(error), "damaged"
    reason = status.reason if status else ""
    if state == "damaged":
        first = next(key for key in ("status.json", "run.json", "records") if key in problems)
        reason = problems.pop(first).rstrip(".")
    flat = recorded_settings(attempt.record, config)
    some = next((frame for frame in frames.values() if len(frame)), pd.DataFrame())
    return _Reading(directory, attempt, state, state == "done", reason, problems, flat, frames, some)


def _check(reading: _Reading, tables: tuple[str, ...]) -> None:
    """Take out what has no episode, is not of this run, or is no table of episodes; note what was touched."""
    attempt, directory = reading.attempt, reading.directory
    written = attempt.status.sha256 if attempt.status else {}
    reading.odd = touched_identity(directory, attempt.record)
    reading.odd += touched_files(directory, {"sha256": written}, attempt.provenance, tables)
    for name, frame in reading.frames.items():
        if "method" in frame:  # an old name in it; in a part of the rows alone where a run was gone on with
            reading.frames[name] = frame.assign(method=frame["method"].map(modern_label, na_action="ignore"))
    reading.wrong = contradictions(attempt.record, reading.frames)
    episodes = reading.frames.get("episodes", pd.DataFrame())
    if reading.wrong:
        reading.some = pd.DataFrame()
        reading.drop(f"its tables are not of this run: {'; '.join(reading.wrong)}")
    elif len(episodes):
        try:
            reading.frames["episodes"] = complete_episodes(episodes, f"{reading.place}/episodes.parquet")
        except Refusal as refusal:
            reading.drop(str(refusal).rstrip("."))
    elif reading.used and "episodes" in tables:
        reading.used, reading.reason = False, "finished without a single episode"


def _run_row(reading: _Reading) -> dict[str, Any]:
    """The attempt's row in the list of runs; names come from its tables, or else from its settings."""
    some, flat, attempt = reading.some, reading.flat, reading.attempt
    named = some.iloc[0] if len(some) else None
    seed = flat.get("seed", -1) if named is None else named["seed"]
    digest = reading.place.partition("/")[0]
    return {
        "run": str(named["run"]) if named is not None and "run" in some else digest[:12],
        "attempt": attempt.number,
        "method": _called(flat) if named is None else modern_label(str(named["method"])),
        "env": str(flat.get("env.name", flat.get("env", "unknown"))) if named is None else str(named["env"]),
        "seed": int(seed) if str(seed).lstrip("-").isdigit() else -1,
        "state": reading.state,
        "used": reading.used,
        "reason": reading.reason,
        "config_id": recipe_of(flat),
        "commit": str((attempt.provenance.get("code") or {}).get("commit") or ""),
        "plan": str(attempt.provenance.get("plan_sha256") or ""),
        "started": _started(attempt.status, attempt.provenance),
        "where": reading.place,
    }


def _pair(record: dict[str, Any], flat: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """What makes a run the partner of another; the weights of its student are in its provenance."""
    said, models = record.get("pair"), provenance.get("models")
    pair = dict(said) if isinstance(said, dict) else pair_of(flat)
    weights = models.get("student") if isinstance(models, dict) else None
    return pair | ({"student's weights": weights} if weights else {})


def _called(flat: dict[str, Any]) -> str:
    """A run's name by its settings."""
    return str(flat.get("name", flat.get("method", "unknown")))


def _read_table(directory: Path, name: str) -> pd.DataFrame:
    """A table of a finished run, empty where there is none. Raises Unreadable."""
    path = directory / f"{name}.parquet"
    if not os.path.lexists(path):
        return pd.DataFrame()
    if problem := file_problem(path):
        raise Unreadable(problem)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read().to_pandas().rename(columns=RENAMED_COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(f"{path} is not what was written: {short_reason(error, 200)}.") from error


def _read_config(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader) if path.is_file() else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise Unreadable(f"{path} cannot be read as YAML.") from error
    if not isinstance(data, dict):
        raise Unreadable(f"{path} holds no config.")
    return {str(key): value for key, value in data.items()}


def _started(status: RunStatus | None, provenance: dict[str, Any]) -> str:
    """Start of the run, ISO 8601 with zone. status.json has seconds since the epoch, provenance.json a
    text."""
    if status is not None and 0 < status.started < 1e11:
        return datetime.fromtimestamp(status.started, UTC).isoformat(timespec="seconds")
    return str(provenance.get("time") or "")

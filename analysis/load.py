"""Where records come from: run directories, an MLflow experiment, or a plain table of episodes.

Invariant: a run that is not finished, or cannot be read, never disappears, and stops no other. It is a row of
`Records.runs` with `used=False`, its reason and a line in `Records.notes`; every command prints those lines.

Reads record format version 1 (`sage/records/schema.py`): `runs/<digest12>/attempt_<n>/` with `status.json`,
`run.json` (or `config.yaml`), `provenance.json`, `episodes.parquet`, `turns.parquet` and `steps.parquet`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.episodes import CONTEXT_FULL, NO_SETTINGS, complete_episodes, plain_words
from analysis.errors import Refusal
from analysis.recipes import tell_apart
from analysis.table_file import read_episodes
from analysis.touched import contradictions, touched_files, touched_identity
from sage.records.below import attempts_below
from sage.records.files import Unreadable
from sage.records.identity import pair_of, recipe_of, recorded_settings
from sage.records.reader import Attempt, file_problem, open_attempt
from sage.records.run_ledger import RunLedger
from sage.records.run_ledger import read as read_ledger
from sage.records.rundir import RunStatus

TABLES = ("episodes", "turns", "steps")

RUN_COLUMNS = (
    "run",
    "attempt",
    "method",
    "env",
    "seed",
    "state",
    "used",
    "reason",
    "config_id",
    "commit",
    "plan",
    "started",
    "where",
)


@dataclass(frozen=True)
class Records:
    """Everything that was loaded. `runs` has one row per run, finished or not; the other tables hold the
    rows of finished runs only. `configs` maps a run to its flattened settings, `provenance` to its
    provenance, `others` to the states of its attempts that are not in the numbers, `touched` to what shows
    that its records are not as it wrote them (absent where nothing does), `digests` to those that it wrote
    at its end (`sage.records.seal`), `pairs` to what makes it the partner of another run (`analysis.pairs`;
    empty for plain tables). `ledger` has the lines beside the runs (`sage.records.run_ledger`)."""

    runs: pd.DataFrame
    episodes: pd.DataFrame
    turns: pd.DataFrame = field(default_factory=pd.DataFrame)
    steps: pd.DataFrame = field(default_factory=pd.DataFrame)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: dict[str, dict[str, str]] = field(default_factory=dict)
    touched: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    pairs: dict[str, dict[str, Any]] = field(default_factory=dict)
    ledger: RunLedger = field(default_factory=RunLedger)
    notes: tuple[str, ...] = ()

    @property
    def unused(self) -> pd.DataFrame:
        """Runs that are not finished: failed, running, or without records."""
        return self.runs[~self.runs["used"].astype(bool)]


def load(
    inputs: Sequence[str | Path], tables: Iterable[str] = ("episodes",), vary: Sequence[str] = ()
) -> Records:
    """Load `inputs`: directories, `.csv`/`.parquet` tables of episodes, or `mlflow:EXPERIMENT[@URI]`.

    `tables` names the record tables to read beside the run list (turn texts are large). `vary` lists config
    keys (dotted, e.g. `confidence.threshold`) that are meant to differ between runs of one method: each value
    becomes a method of its own, named `method[key=value]`.
    """
    if not inputs:
        raise Refusal(
            "No records were named: give run directories, a CSV of episodes, or mlflow:EXPERIMENT@URI."
        )
    for key in vary:
        if key in NO_SETTINGS:
            raise Refusal(
                f"{key} tells plays of one setting apart and is no setting; name what was varied, a config "
                "key such as confidence.threshold or a column that holds one value per run."
            )
    parts = [_load_one(str(item), tuple(tables)) for item in inputs]
    records = _concat(parts)
    if records.runs.empty:
        raise Refusal(f"No runs were found in {', '.join(map(str, inputs))}.")
    clash = records.runs.loc[records.runs["run"].duplicated(), "run"]
    if len(clash):
        where = sorted(set(records.runs.loc[records.runs["run"] == clash.iloc[0], "where"].astype(str)))
        raise Refusal(
            f"Run {clash.iloc[0]} is there more than once (in {' and '.join(where[:3])}); name each run "
            "once, or take the copy away."
        )
    records = tell_apart(_vary(records, vary) if vary else records)
    notes = (*records.notes, *_failure_notes(records), *_context_notes(records))
    return replace(records, notes=notes)


def _load_one(item: str, tables: tuple[str, ...]) -> Records:
    if item.startswith("mlflow:"):
        from analysis.load_mlflow import load_experiment

        experiment, _, uri = item.removeprefix("mlflow:").partition("@")
        return load_experiment(experiment, uri or None, tables)
    path = Path(item)
    if path.is_dir():
        return load_directory(path, tables)
    return from_episodes(read_episodes(path), where=path.name)


def from_episodes(episodes: pd.DataFrame, where: str = "table") -> Records:
    """Records from a plain table with one row per played game (`docs/analysis.md` documents the columns)."""
    episodes, notes = plain_words(episodes, where)
    episodes = complete_episodes(episodes, where)
    first = episodes.drop_duplicates("run")
    runs = pd.DataFrame(
        {
            "run": first["run"],
            "attempt": 0,
            "method": first["method"],
            "env": first["env"],
            "seed": first["seed"],
            "state": "done",
            "used": True,
            "reason": "",
            "config_id": "",
            "commit": "",
            "plan": "",
            "started": "",
            "where": where,
        }
    ).reset_index(drop=True)
    return Records(runs=runs, episodes=episodes, notes=notes)


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
    parts = [Records(pd.DataFrame(), pd.DataFrame(), notes=tuple(notes))]
    for chain in by_digest.values():
        opened = [open_attempt(path, tables=False) for path in chain]
        states = [_state(one) for one in opened]
        finished = [index for index, state in enumerate(states) if state == "done"]
        chosen = finished[-1] if finished else len(chain) - 1
        part = load_attempt(chain[chosen], tables)
        earlier = [f"attempt {opened[i].number} {states[i]}" for i in range(chosen) if states[i] != "done"]
        row = part.runs.iloc[0]
        who = f"Run {row.run} ({row.method}, seed {row.seed})"
        notes = [f"{who} needed more than one attempt: {', '.join(earlier)}."] if earlier else []
        if len(finished) > 1:
            numbers = ", ".join(str(opened[i].number) for i in finished)
            notes.append(
                f"{who} was finished more than once (attempts {numbers}); the last one is in the numbers, "
                "and a result that was chosen among attempts confirms nothing."
            )
        others = {f"attempt {opened[i].number}": states[i] for i in range(len(chain)) if i != chosen}
        part = replace(part, notes=(*notes, *part.notes), others={row.run: others} if others else {})
        parts.append(part)
    ledgers = [read_ledger(folder) for folder in sorted({path.parent.parent for path in attempts})]
    for ledger in ledgers:
        parts.append(replace(_NOTHING, ledger=ledger, notes=ledger.problems))
    return _concat(parts)


def _state(attempt: Attempt) -> str:
    if {"status.json", "run.json"} & set(attempt.problems):
        return "damaged"
    return attempt.status.state if attempt.status else "no status"


def load_attempt(directory: Path, tables: tuple[str, ...]) -> Records:
    """One attempt directory. Rows are read only where the run is done."""
    attempt = open_attempt(directory, tables=False)
    state, problems, provenance = _state(attempt), dict(attempt.problems), attempt.provenance
    status = attempt.status
    config: dict[str, Any] = {}
    frames: dict[str, pd.DataFrame] = {}
    try:
        config = {} if attempt.record else _read_config(directory / "config.yaml")
        wanted = tables if state == "done" else ()
        frames = {name: _read_table(directory, name) for name in wanted}
    except Unreadable as error:
        problems["records"], state = str(error), "damaged"
    used = state == "done"
    episodes = frames.get("episodes", pd.DataFrame())
    some = next((frame for frame in frames.values() if len(frame)), pd.DataFrame())
    digest = directory.parent.name if directory.name.startswith("attempt_") else directory.name
    reason = status.reason if status else ""
    if state == "damaged":
        keys = [key for key in ("status.json", "run.json", "records") if key in problems]
        reason = problems.pop(keys[0]).rstrip(".")
    if used and "episodes" in tables and not len(episodes):
        used, reason = False, "finished without a single episode"
    flat = recorded_settings(attempt.record, config)
    written = status.sha256 if status else {}
    odd = touched_identity(directory, attempt.record)
    odd += touched_files(directory, {"sha256": written}, provenance, tables)
    wrong = contradictions(attempt.record, frames)
    if wrong:
        used, reason = False, f"its tables are not of this run: {'; '.join(wrong)}"
        episodes = some = pd.DataFrame()
        frames = {}
    elif len(episodes):
        try:
            frames["episodes"] = complete_episodes(episodes, f"{digest}/{directory.name}/episodes.parquet")
        except Refusal as refusal:
            used, reason = False, str(refusal).rstrip(".")
            frames = {}
    run = str(some["run"].iloc[0]) if len(some) and "run" in some else digest[:12]
    seed = some["seed"].iloc[0] if len(some) else flat.get("seed", -1)
    code = provenance.get("code") or {}
    row = {
        "run": run,
        "attempt": attempt.number,
        "method": str(some["method"].iloc[0]) if len(some) else _called(flat),
        "env": str(some["env"].iloc[0])
        if len(some)
        else str(flat.get("env.name", flat.get("env", "unknown"))),
        "seed": int(seed) if str(seed).lstrip("-").isdigit() else -1,
        "state": state,
        "used": used,
        "reason": reason,
        "config_id": recipe_of(flat),
        "commit": str(code.get("commit") or ""),
        "plan": str(provenance.get("plan_sha256") or ""),
        "started": _started(status, provenance),
        "where": f"{digest}/{directory.name}",
    }
    return Records(
        runs=pd.DataFrame([row]),
        episodes=frames.get("episodes", pd.DataFrame()),
        turns=frames.get("turns", pd.DataFrame()),
        steps=frames.get("steps", pd.DataFrame()),
        configs={run: flat},
        provenance={run: provenance},
        touched={run: tuple(odd + wrong)} if odd or wrong else {},
        digests={run: dict(written)},
        pairs={run: _pair(attempt.record, flat, provenance)},
        notes=(
            *problems.values(),
            *(f"Records of run {run} ({row['method']}, seed {row['seed']}): {what}." for what in odd),
        ),
    )


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
            return file.read().to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(f"{path} is not what was written: {str(error).splitlines()[0][:200]}.") from error


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


def _vary(records: Records, keys: Sequence[str]) -> Records:
    """Rename each method to `method[key=value]` and add the values as columns of runs and episodes."""
    runs = records.runs.copy()
    values = {run: {key: _config_value(records, run, key) for key in keys} for run in runs["run"]}
    labels = {
        run: ",".join(
            f"{key.rsplit('.', 1)[-1]}={value}" for key, value in chosen.items() if value is not None
        )
        for run, chosen in values.items()
    }
    tables = {"runs": runs}
    for name in TABLES:
        tables[name] = getattr(records, name).copy()
    for frame in tables.values():
        if not len(frame):
            continue
        label = frame["run"].map(labels)
        plain = frame["method"].astype(str).map(lambda name: _without_tokens(name, keys))
        frame["method"] = plain + label.map(lambda text: f"[{text}]" if text else "")
        for key in keys:
            frame[key] = frame["run"].map({run: chosen[key] for run, chosen in values.items()})
    configs = {
        run: {
            key: _without_tokens(value, keys) if key == "name" else value
            for key, value in flat.items()
            if key not in keys
        }
        for run, flat in records.configs.items()
    }
    runs["config_id"] = [recipe_of(configs.get(run, {})) for run in runs["run"]]
    return replace(records, **tables, configs=configs)


def _without_tokens(name: str, keys: Sequence[str]) -> str:
    """A run's name without what it says itself about `keys`: opd+confidence.tau=0.3 varied by that is opd."""
    head, *tokens = str(name).split("+")
    return "+".join([head, *(token for token in tokens if token.partition("=")[0] not in keys)])


def _config_value(records: Records, run: str, key: str) -> Any:
    config = records.configs.get(run, {})
    if config:
        return config.get(key)
    if key in records.episodes:
        found = records.episodes.loc[records.episodes["run"] == run, key].unique()
        if len(found) == 1:
            return found[0]
        raise Refusal(
            f"The column {key} has {len(found)} values within run {run}; a setting is one value per run."
        )
    raise Refusal(f"{key} is neither a config key of run {run} nor a column of its episodes.")


_NOTHING = Records(runs=pd.DataFrame(), episodes=pd.DataFrame())


def _concat(parts: Sequence[Records]) -> Records:
    def stack(name: str) -> pd.DataFrame:
        frames = [getattr(part, name) for part in parts if len(getattr(part, name))]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    runs = stack("runs")
    if len(runs):
        runs = runs.sort_values(["method", "env", "seed", "run"], kind="stable").reset_index(drop=True)
    return Records(
        runs=runs,
        episodes=stack("episodes"),
        turns=stack("turns"),
        steps=stack("steps"),
        configs={run: flat for part in parts for run, flat in part.configs.items()},
        pairs={run: value for part in parts for run, value in part.pairs.items()},
        provenance={run: value for part in parts for run, value in part.provenance.items()},
        others={run: value for part in parts for run, value in part.others.items()},
        touched={run: value for part in parts for run, value in part.touched.items()},
        digests={run: value for part in parts for run, value in part.digests.items()},
        ledger=RunLedger(
            tuple(entry for part in parts for entry in part.ledger.entries),
            tuple(problem for part in parts for problem in part.ledger.problems),
        ),
        notes=tuple(note for part in parts for note in part.notes),
    )


def _failure_notes(records: Records) -> list[str]:
    notes = []
    for row in records.unused.itertuples():
        reason = f": {row.reason}" if row.reason else ""
        notes.append(
            f"Run {row.run} ({row.method}, {row.env}, seed {row.seed}) is not in the numbers; its state is "
            f"{row.state}{reason}."
        )
    return notes


def _context_notes(records: Records) -> list[str]:
    """One line for each method whose evaluations were cut by the context: a loss there may be the limit's."""
    episodes = records.episodes
    if not len(episodes):
        return []
    notes = []
    evaluated = episodes[episodes["phase"] == "eval"]
    for (method, env), group in evaluated.groupby(["method", "env"], sort=True, observed=True):
        full = int(group["status"].eq(CONTEXT_FULL).sum())
        if full:
            notes.append(
                f"{full} of {len(group)} evaluation episodes of {method} on {env} were cut by the context "
                "(context_full) and count as not won; a higher rollout.max_context would tell."
            )
    return notes

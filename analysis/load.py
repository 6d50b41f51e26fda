"""Where records come from: run directories, an MLflow experiment, or a plain table of episodes.

Invariant: a run that is not finished, or cannot be read, never disappears, and stops no other. It is a row of
`Records.runs` with `used=False`, its reason and a line in `Records.notes`; every command prints those lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.episodes import CONTEXT_FULL, NO_SETTINGS, complete_episodes, plain_words
from analysis.errors import Refusal
from analysis.recipes import tell_apart
from analysis.records import Records, concat
from analysis.run_folders import load_directory
from analysis.table_file import read_episodes
from analysis.vary import vary as varied


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
            "No records were named: give run directories, a CSV of episodes, or mlflow:EXPERIMENT@<URI>."
        )
    for key in vary:
        if key in NO_SETTINGS:
            raise Refusal(
                f"{key} tells plays of one setting apart and is no setting; name what was varied, a config "
                "key such as confidence.threshold or a column that holds one value per run."
            )
    parts = [_load_one(str(item), tuple(tables)) for item in inputs]
    records = concat(parts)
    if records.runs.empty:
        raise Refusal(f"No runs were found in {', '.join(map(str, inputs))}.")
    clash = records.runs.loc[records.runs["run"].duplicated(), "run"]
    if len(clash):
        where = sorted(set(records.runs.loc[records.runs["run"] == clash.iloc[0], "where"].astype(str)))
        raise Refusal(
            f"Run {clash.iloc[0]} is there more than once (in {' and '.join(where[:3])}); name each run "
            "once, or take the copy away."
        )
    records = tell_apart(varied(records, vary) if vary else records)
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
    """Records from a plain table with one row per played game (columns: `docs/reference/analysis.md`)."""
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


def _failure_notes(records: Records) -> list[str]:
    notes = []
    for row in records.unused.itertuples():
        reason = f": {row.reason.rstrip('.')}" if row.reason else ""
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

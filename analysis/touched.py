"""Whether records are still what their run wrote: files against the digests in status.json, and what the
tables say of themselves against run.json.

A run without digests (before schema version 2, or from elsewhere) gives no sentence here: nothing is known of
it. Nothing here is proof against a forger, who can write digests as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sage.config.moved import modern_label
from sage.records.identity import Identity
from sage.records.seal import SOURCE, file_digest


def touched_files(
    directory: Path, status: Mapping[str, Any], provenance: Mapping[str, Any], tables: tuple[str, ...]
) -> list[str]:
    """One sentence for each record file that is not what it was when the run ended; of the tables those that
    are read."""
    written: Mapping[str, str] = status.get("sha256") or {}
    if not written:
        return []
    looked_at = [name for name in written if name != SOURCE and not name.endswith(".parquet")]
    looked_at += [f"{table}.parquet" for table in tables if f"{table}.parquet" in written]
    found = []
    for name in looked_at:
        path = directory / name
        if not path.is_file():
            found.append(f"{name} is gone")
        elif file_digest(path) != written[name]:
            found.append(f"{name} was changed after the run had ended")
    began = (provenance.get("code") or {}).get("source_sha256")
    if began and written.get(SOURCE, began) != began:
        found.append("the code was changed between its start and its end")
    return found


def touched_identity(directory: Path, run_json: Mapping[str, Any]) -> list[str]:
    """One sentence where run.json's settings do not give its digest, or the digest not its folder's name."""
    if not {"digest", "fields", "manifest_digest", "schema_version"} <= set(run_json):
        return []
    identity = Identity(run_json["fields"], run_json["manifest_digest"], run_json["schema_version"])
    if identity.digest != run_json["digest"]:
        return ["the settings in run.json do not give the digest that stands there"]
    if directory.name.startswith("attempt_") and directory.parent.name != identity.run:
        return [f"run.json is that of run {identity.run}"]
    return []


def contradictions(run_json: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """One sentence for each table whose run, method, environment, seed or splits are not run.json's. `frames`
    have methods under today's names, whichever they were written under."""
    fields = run_json.get("fields") or {}
    said: dict[str, Any] = {
        "run": run_json.get("digest", "")[:12] or None,
        "method": _called(fields),
        "env": (fields.get("env") or {}).get("name"),
        "seed": fields.get("seed"),
    }
    splits = (fields.get("evaluation") or {}).get("splits")
    found = []
    for table, frame in frames.items():
        for column, value in said.items():
            if value is None or column not in frame or not len(frame):
                continue
            others = sorted(map(str, set(frame[column].unique()) - {value}))
            if others:
                found.append(f"{table} has {column} {', '.join(others[:3])} where run.json has {value}")
        if splits and {"phase", "split"} <= set(frame):
            played = frame.loc[frame["phase"] == "eval", "split"].unique()
            others = sorted(map(str, set(played) - set(splits)))
            if others:
                found.append(
                    f"{table} has evaluations of {', '.join(others[:3])}, which run.json does not name"
                )
    return found


def _called(fields: Mapping[str, Any]) -> str | None:
    """What the run's tables call it today."""
    name = fields.get("name") or fields.get("method")
    return modern_label(str(name)) if name else None

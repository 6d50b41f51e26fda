"""Records from an MLflow experiment: the same files as a run directory, read from the runs' artifacts.

MLflow takes seconds to import, so only this file imports it, and only when an `mlflow:` input is named.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import Refusal
from analysis.records import TABLES, Records
from analysis.run_folders import load_directory

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

DESCRIPTIONS = ("config.yaml", "run.json", "provenance.json")
FILES = (*DESCRIPTIONS, *(f"{table}.parquet" for table in (*TABLES, "tokens")))
STATES = {
    "FINISHED": "done",
    "FAILED": "failed",
    "KILLED": "failed",
    "RUNNING": "running",
    "SCHEDULED": "absent",
}


def load_experiment(name: str, uri: str | None, tables: tuple[str, ...]) -> Records:
    """All runs of experiment `name` at tracking URI `uri` (None takes MLFLOW_TRACKING_URI).

    A run that has children and no records of its own is a sweep's parent and is passed over; any other run
    without records is listed as not finished.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lay_out(name, uri, Path(scratch), tables)
        return load_directory(Path(scratch), tables)


def lay_out(name: str, uri: str | None, folder: Path, tables: tuple[str, ...]) -> None:
    """Write an experiment's runs into an empty folder as run directories; see `load_experiment`."""
    # Read when MLflow is used; a bar for each of hundreds of small files says nothing.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri or mlflow.get_tracking_uri())
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(sorted(item.name for item in client.search_experiments())) or "none"
        raise Refusal(f"There is no MLflow experiment {name!r} there; its experiments are: {known}.")
    runs, token = [], None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            break
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    for run in runs:
        found = _artifacts(client, run.info.run_id)
        if found or run.info.run_id not in parents:
            _as_run_directory(client, run, found, folder, tables)
    if not any(folder.iterdir()):
        raise Refusal(f"The MLflow experiment {name!r} has no runs with records.")


def _as_run_directory(
    client: MlflowClient, run: Run, found: dict[str, str], scratch: Path, tables: tuple[str, ...]
) -> None:
    """Lay a run out as `<digest12>/attempt_<n>/`, so that MLflow and run directories are read by one code."""
    labels = run.data.params | run.data.tags
    home = scratch / labels.get("sage.run", run.info.run_id) / f"attempt_{labels.get('sage.attempt', 1)}"
    home.mkdir(parents=True)
    for file in sorted({*DESCRIPTIONS, *(f"{table}.parquet" for table in tables)} & set(found)):
        local = Path(client.download_artifacts(run.info.run_id, found[file], str(home)))
        if local != home / file:
            local.replace(home / file)
    state = labels.get("sage.state") or STATES.get(run.info.status, run.info.status.lower())
    reason = labels.get("sage.reason", "")
    if state not in ("done", "failed", "running"):
        state, reason = "failed", reason or f"{state} in MLflow"
    status = {"state": state, "reason": reason, "started": run.info.start_time / 1000}
    (home / "status.json").write_text(json.dumps(status), encoding="utf-8")
    if "run.json" not in found and "config.yaml" not in found:
        seed = labels.get("seed", "")
        fields = {
            "method": labels.get("method", "unknown"),
            "env": {"name": labels.get("env", "unknown")},
            "seed": int(seed) if seed.isdigit() else -1,
        }
        (home / "config.yaml").write_text(json.dumps(fields), encoding="utf-8")


def _artifacts(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Record file name → artifact path, wherever in the artifact tree the exporter put it."""
    found: dict[str, str] = {}
    folders: list[str | None] = [None]
    while folders:
        for item in client.list_artifacts(run_id, folders.pop()):
            name = item.path.rsplit("/", 1)[-1]
            if item.is_dir:
                folders.append(item.path)
            elif name in FILES:
                found.setdefault(name, item.path)
    return found

"""`python -m sage.records.mlflow.study <study.json>`: a study into MLflow (file by `sage.sweep.export`).

One parent run per study, one child per trial with its point and value, and below each trial the runs of its
seeds. Trials and seeds carry as tags what they vary (`sage.vary.<setting>`), the study, the trial, the budget
and the plan, so that a flat list can be filtered too. Idempotent: everything is found again by its tags. The
tracking URI is in SAGE_TRACKING_URI.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from sage.records.mlflow.store import open_experiment

STATUSES = {"complete": "FINISHED", "fail": "FAILED", "running": "RUNNING", "waiting": "SCHEDULED"}


def send(request: dict[str, Any], uri: str) -> str:
    """Create or bring up to date; the parent's run id."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = open_experiment(uri, request["experiment"])
    parent = _find(client, experiment, {"sage.study": request["study"], "sage.kind": "study"})
    if parent is None:
        tags = {"sage.study": request["study"], "sage.kind": "study"}
        parent = client.create_run(experiment, tags=tags, run_name=f"study {request['study']}").info.run_id
    client.set_tag(parent, "sage.definition", json.dumps(request["definition"])[:5000])
    counted = [t for t in request["trials"] if t["state"] == "complete"]
    client.log_metric(parent, "trials_finished", len(counted))
    for plot in request["plots"]:
        client.log_artifact(parent, plot)
    for trial in request["trials"]:
        if trial["state"] == "waiting":
            continue
        labels = {f"sage.{name}": value for name, value in request.get("labels", {}).items()}
        labels |= {f"sage.vary.{name}": str(value) for name, value in trial["params"].items()}
        _send_trial(client, experiment, parent, request["study"], trial, labels)
    client.set_terminated(parent, "FINISHED")
    return str(parent)


def _send_trial(
    client: Any, experiment: str, parent: str, study: str, trial: dict[str, Any], labels: dict[str, str]
) -> None:
    tags = {"sage.study": study, "sage.kind": "trial", "sage.trial": str(trial["number"])}
    run = _find(client, experiment, tags)
    if run is None:
        run = client.create_run(
            experiment,
            start_time=int(1000 * (trial["start"] or time.time())),
            tags={**tags, "mlflow.parentRunId": parent, "sage.pruned": str(trial["pruned"]).lower()},
            run_name=trial["name"],
        ).info.run_id
        for key, value in trial["params"].items():
            client.log_param(run, key, value)
        for key, value in trial["figures"].items():
            client.log_metric(run, key, value)
        end = int(1000 * trial["end"]) if trial["end"] else None
        client.set_terminated(run, STATUSES.get(trial["state"], "FAILED"), end_time=end)
    for name, value in labels.items():
        client.set_tag(run, name, value)
    below = labels | {"mlflow.parentRunId": run, "sage.study": study, "sage.trial": str(trial["number"])}
    for seed_run in trial["runs"].values():
        for found in client.search_runs([experiment], f"tags.`sage.run` = '{seed_run}'"):
            for name, value in below.items():
                client.set_tag(found.info.run_id, name, value)


def _find(client: Any, experiment: str, tags: dict[str, str]) -> str | None:
    words = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment], words, max_results=1)
    return str(found[0].info.run_id) if found else None


if __name__ == "__main__":
    print(send(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), os.environ["SAGE_TRACKING_URI"]))

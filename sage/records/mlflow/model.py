"""The model of a run's newest checkpoint as a model of MLflow's, on demand: nobody wants gigabytes unasked.

    python -m sage.records.mlflow.export runs/<digest12>/attempt_1 --model

MLflow keeps the checkpoint's `student` folder as it is: what transformers loads, and what
`student.path=` takes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sage.records.rundir import RunDir

NAME = "student"
FILES, STEP = "sage.files", "sage.step"
"""Tags of the model: digest of the checkpoint's list of files, and its optimizer step."""


class NoModel(RuntimeError):
    """The run has no checkpoint with a model."""


def newest(run: RunDir) -> Path:
    """The newest whole checkpoint's folder. Raises NoModel where there is none."""
    found = sorted(path.parent.parent for path in run.checkpoints.glob("step-*/student/config.json"))
    whole = [path for path in found if (path / "files.json").is_file()]
    if not whole:
        raise NoModel(f"{run.checkpoints} holds no checkpoint with a model; train at least one step")
    return whole[-1]


def send_model(client: Any, experiment: str, run_id: str, run: RunDir) -> str:
    """Send it once; returns the model's id in MLflow. Raises NoModel and what MLflow raises."""
    folder = newest(run)
    digest = hashlib.sha256((folder / "files.json").read_bytes()).hexdigest()
    there = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    for model in there:
        if model.tags.get(FILES) == digest and model.status == "READY":
            return str(model.model_id)
    step = str(int(folder.name.partition("-")[2]))
    made = client.create_logged_model(
        experiment, name=NAME, source_run_id=run_id, tags={FILES: digest, STEP: step}
    )
    try:
        client.log_model_artifacts(made.model_id, str(folder / NAME))
    except BaseException:
        client.finalize_logged_model(made.model_id, "FAILED")
        raise
    client.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)

"""A run directory as one MLflow run. mlflow is imported inside functions alone: it takes seconds.

    python -m sage.records.mlflow.export runs/<digest12>/attempt_1 --uri sqlite:///mlflow.db

Idempotent: the run is found by its `sage.key` tag (digest and attempt) and brought up to date. Where
MLflow holds points of steps that the directory has since dropped (a resume from an earlier checkpoint),
that MLflow run is deleted and made anew, so that no curve mixes two histories.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sage.locks import locked
from sage.records.loggers import curves, labels, samples
from sage.records.loggers.base import Point
from sage.records.loggers.by_hand import Ways, export_parser, run_export
from sage.records.loggers.note import tracking_of
from sage.records.mlflow.model import send_model
from sage.records.mlflow.store import SHORT_RETRIES, batches, one_sentence, open_experiment, resolve_uri
from sage.records.mlflow.traces import Traces
from sage.records.mlflow.view import send_view
from sage.records.rundir import RunDir
from sage.records.system import Samples
from sage.records.tables import write_consolidated
from sage.redaction import redact

EPISODES, TURNS = "episodes.json", "turns.json"
"""Tables that MLflow shows and compares across runs."""
TURNS_EVERY_S = 30.0
"""Of a run that is going: the table is written whole each time."""


class RunExport:
    """Brings one MLflow run up to date with one run directory; `sync` may be called any number of times."""

    def __init__(self, run_dir: Path, uri: str) -> None:
        self.run = RunDir(run_dir)
        self.uri = uri
        self._id = ""
        self._last_step = -1
        self._sent: set[Point] = set()
        self._seen: list[str] | None = None
        self._tables: dict[str, str] = {}
        self._turns_not_before = 0.0
        self._samples = Samples(self.run.path)

    def sync(self, final: bool) -> str:
        """Send what is new (`final`: everything); returns the MLflow run id. Raises what MLflow raises."""
        parts = self.run.path / "parts"
        present = sorted(os.listdir(parts)) if parts.exists() else []
        if not final and present == self._seen:
            self._send_system()
            return self._id
        with locked(self.run.path / ".mlflow.lock"):
            client = self._connect()
            if self._last_step < 0:
                self._last_step = self._resume_point(client)
                client.update_run(self._id, status="RUNNING")
            self._send_metrics(client, curves.points(self.run, self._last_step))
            self._send_system()
            if final or time.monotonic() >= self._turns_not_before:
                self._send_turns(client)
            if final:
                self._send_metrics(client, curves.final_points(self.run))
                self._send_tags(client)
                self._send_artifacts(client)
                env = str(self.run.identity().fields.get("env", {}).get("name", "games"))
                started = curves.step_times(self.run)[0]
                send_view(client, self._experiment, env, curves.success_curves(self.run), started)
                self._traces(client).send(self._each)
                self._set_state(client)
                status = self.run.status()
                self._note(complete=status is not None and status.state == "done")
        self._seen = present
        return self._id

    def _connect(self) -> Any:
        """A client, with the run found or made."""
        from mlflow import MlflowClient

        if self._id:
            return MlflowClient(self.uri)
        tracking = tracking_of(self.run.path)
        self._each = int(tracking.get("traces", 2))
        self._experiment = open_experiment(self.uri, tracking.get("experiment", "sage"))
        client = MlflowClient(self.uri)
        found = client.search_runs(
            [self._experiment], filter_string=f"tags.`sage.key` = '{labels.key(self.run)}'", max_results=1
        )
        if found:
            self._id = found[0].info.run_id
        else:
            self._create(client)
        return client

    def _create(self, client: Any) -> None:
        from mlflow.entities import Param

        started = curves.step_times(self.run)[0]
        tags = labels.tags(self.run)
        name = tags.pop("mlflow.runName")
        made = client.create_run(self._experiment, start_time=started, tags=tags, run_name=name)
        self._id = made.info.run_id
        for batch in batches(labels.params(self.run).items(), 100):
            client.log_batch(self._id, params=[Param(key, value) for key, value in batch])
        self._send_dataset(client)
        self._note(complete=False)

    def _note(self, complete: bool) -> None:
        """Where the run is in MLflow, and whether all of it is."""
        info = {"uri": redact(self.uri), "experiment": self._experiment, "run_id": self._id}
        self.run.write_json("mlflow.json", info | {"complete": complete})

    def _resume_point(self, client: Any) -> int:
        """The last step that MLflow has completely; makes the run anew where it has others than we."""
        times = curves.step_times(self.run)
        history = client.get_metric_history(self._id, curves.MARKER)
        if any(times.get(point.step) != point.timestamp for point in history):
            self._traces(client).delete()
            client.delete_run(self._id)
            self._create(client)
            return 0
        return max((point.step for point in history), default=0)

    def _send_metrics(self, client: Any, points: list[Point]) -> None:
        from mlflow.entities import Metric

        for batch in batches([point for point in points if point not in self._sent], 1000):
            metrics = [Metric(point.key, point.value, point.timestamp_ms, point.step) for point in batch]
            client.log_batch(self._id, metrics=metrics, synchronous=True)
            self._sent.update(batch)
            self._last_step = max([self._last_step, *(p.step for p in batch if p.key == curves.MARKER)])

    def _send_system(self) -> None:
        """What the run takes of its machine, a step a sample; MLflow has a page for it."""
        from mlflow.entities import Metric

        metrics = [
            Metric(f"system/{name}", value, int(1000 * sample["time"]), number)
            for number, sample in self._samples.new()
            for name, value in sample.items()
            if name != "time"
        ]
        for batch in batches(metrics, 1000):
            self._connect().log_batch(self._id, metrics=batch, synchronous=True)

    def _send_tags(self, client: Any) -> None:
        from mlflow.entities import RunTag

        tags = labels.tags(self.run)
        client.log_batch(self._id, tags=[RunTag(key, value[:5000]) for key, value in tags.items()])

    def _send_dataset(self, client: Any) -> None:
        from mlflow.entities import Dataset, DatasetInput

        identity = self.run.identity()
        name = str(identity.fields.get("env", {}).get("name", "games"))
        dataset = Dataset(
            name=name,
            digest=identity.manifest_digest[:32] or "none",
            source_type="sage-manifest",
            source=json.dumps({"manifest_sha256": identity.manifest_digest}),
        )
        client.log_inputs(self._id, datasets=[DatasetInput(dataset=dataset)])

    def _send_artifacts(self, client: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_consolidated(self.run.path, Path(folder))
            client.log_artifacts(self._id, folder, artifact_path="tables")
        for name in ("config.yaml", "run.json", "provenance.json", "code.diff", "summary.json", "log.txt"):
            path = self.run.path / name
            if path.is_file():
                client.log_artifact(self._id, str(path), artifact_path="run")
        self._send_table(client, EPISODES, samples.episode_table(self.run))

    def _send_turns(self, client: Any) -> None:
        """The turns of sampled episodes, while training goes on too."""
        self._turns_not_before = time.monotonic() + TURNS_EVERY_S
        self._send_table(client, TURNS, samples.turn_table(self.run))

    def _send_table(self, client: Any, name: str, table: dict[str, list[Any]]) -> None:
        """A table in the format of `log_table`, which would append to what an earlier export left."""
        if not table:
            return
        rows = [list(row) for row in zip(*table.values(), strict=True)]
        text = json.dumps({"columns": list(table), "data": rows})
        if self._tables.get(name) == text:
            return
        client.log_text(self._id, text, name)
        self._tables[name] = text
        listed = json.dumps([{"path": path, "type": "table"} for path in sorted(self._tables)])
        client.set_tag(self._id, "mlflow.loggedArtifacts", listed)

    def _traces(self, client: Any) -> Traces:
        return Traces(client, self.run, self.uri, self._experiment, self._id)

    def _set_state(self, client: Any) -> None:
        status = self.run.status()
        if status is None or self.run.is_at_work(status):
            return
        state = {"done": "FINISHED", "failed": "FAILED"}.get(status.state, "KILLED")
        ended = int(1000 * (status.ended or status.heartbeat))
        client.set_terminated(self._id, status=state, end_time=ended)


    def send_model(self) -> str:
        """The newest checkpoint's model, behind `sync`; returns its id in MLflow."""
        with locked(self.run.path / ".mlflow.lock"):
            return send_model(self._connect(), self._experiment, self._id, self.run)


def export(run_dir: Path, uri: str = "auto", *, model: bool = False) -> str:
    """Export a run directory in this process, with the newest checkpoint's `model` where that is wanted;
    returns the MLflow run id. Raises what MLflow raises, and NoModel."""
    for name, value in SHORT_RETRIES.items():
        os.environ.setdefault(name, value)
    exported = RunExport(run_dir, resolve_uri(uri))
    run_id = exported.sync(final=True)
    if model:
        exported.send_model()
    return run_id


def main(arguments: list[str] | None = None) -> int:
    """Command line; exits 1 where any run directory could not be exported."""
    parser = export_parser("python -m sage.records.mlflow.export", __doc__)
    parser.add_argument("--uri", default="auto", help="default: MLFLOW_TRACKING_URI, else mlflow.db here")
    parser.add_argument("--model", action="store_true", help="and the model of the newest checkpoint")

    def ways(options: argparse.Namespace) -> Ways:
        uri = resolve_uri(options.uri)
        return Ways(
            lambda path: RunExport(path, uri),
            lambda path: f"MLflow run {export(path, uri, model=options.model)} in {redact(uri)}",
            lambda error: one_sentence(error, uri),
        )

    return run_export(parser, arguments, ways)


if __name__ == "__main__":
    sys.exit(main())

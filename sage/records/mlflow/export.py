"""A run directory as one MLflow run: the only file that imports mlflow, and only inside functions.

    python -m sage.records.mlflow.export runs/<digest12>/attempt_1 --uri sqlite:///mlflow.db

Idempotent: the run is found by its `sage.key` tag (digest and attempt) and brought up to date. Where
MLflow holds points of steps that the directory has since dropped (a resume from an earlier checkpoint),
that MLflow run is deleted and made anew, so that no curve mixes two histories.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sage.locks import locked
from sage.records.files import Unreadable
from sage.records.mlflow import data
from sage.records.mlflow.exporter import SHORT_RETRIES, resolve_uri
from sage.records.reader import open_attempt
from sage.records.rundir import RunDir
from sage.records.tables import DamagedRecords, write_consolidated
from sage.redaction import guard_streams, redact

RETRY_S = 30.0
"""Pause of the live export after a failure; the final export is tried once whatever happened before."""
_LOCK_KEY = 0x5A6E0BD
"""Of the advisory lock in PostgreSQL; any number that nobody else takes."""


class RunExport:
    """Brings one MLflow run up to date with one run directory; `sync` may be called any number of times."""

    def __init__(
        self, run_dir: Path, uri: str, *, parent: str = "", tags: dict[str, str] | None = None
    ) -> None:
        self.run = RunDir(run_dir)
        self.uri = uri
        self._more_tags = dict(tags or {})
        if parent:
            self._more_tags["mlflow.parentRunId"] = parent
        self._id = ""
        self._last_step = -1
        self._sent: set[data.Point] = set()
        self._seen: list[str] | None = None

    def sync(self, final: bool) -> str:
        """Send what is new (`final`: everything); returns the MLflow run id. Raises what MLflow raises."""
        parts = self.run.path / "parts"
        present = sorted(os.listdir(parts)) if parts.exists() else []
        if not final and present == self._seen:
            return self._id
        with locked(self.run.path / ".mlflow.lock"):
            client = self._connect()
            if self._last_step < 0:
                self._last_step = self._resume_point(client)
                client.update_run(self._id, status="RUNNING")
            self._send_metrics(client, data.points(self.run, self._last_step))
            if final:
                self._send_metrics(client, data.final_points(self.run))
                self._send_tags(client)
                self._send_artifacts(client)
                self._send_traces(client)
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
        tracking = _tracking(self.run)
        self._traces = int(tracking.get("traces", 2))
        self._experiment = open_experiment(self.uri, tracking.get("experiment", "sage"))
        client = MlflowClient(self.uri)
        found = client.search_runs(
            [self._experiment], filter_string=f"tags.`sage.key` = '{data.key(self.run)}'", max_results=1
        )
        if found:
            self._id = found[0].info.run_id
        else:
            self._create(client)
        return client

    def _create(self, client: Any) -> None:
        from mlflow.entities import Param

        started = data.step_times(self.run)[0]
        tags = data.tags(self.run) | self._more_tags
        name = tags.pop("mlflow.runName")
        made = client.create_run(self._experiment, start_time=started, tags=tags, run_name=name)
        self._id = made.info.run_id
        for batch in data.batches(data.params(self.run).items(), 100):
            client.log_batch(self._id, params=[Param(key, value) for key, value in batch])
        self._send_dataset(client)
        self._note(complete=False)

    def _note(self, complete: bool) -> None:
        """Where the run is in MLflow, and whether all of it is."""
        info = {"uri": redact(self.uri), "experiment": self._experiment, "run_id": self._id}
        self.run.write_json("mlflow.json", info | {"complete": complete})

    def _resume_point(self, client: Any) -> int:
        """The last step that MLflow has completely; makes the run anew where it has others than we."""
        times = data.step_times(self.run)
        history = client.get_metric_history(self._id, data.MARKER)
        if any(times.get(point.step) != point.timestamp for point in history):
            self._delete_traces(client)
            client.delete_run(self._id)
            self._create(client)
            return 0
        return max((point.step for point in history), default=0)

    def _send_metrics(self, client: Any, points: list[data.Point]) -> None:
        from mlflow.entities import Metric

        for batch in data.batches([point for point in points if point not in self._sent], 1000):
            metrics = [Metric(point.key, point.value, point.timestamp_ms, point.step) for point in batch]
            client.log_batch(self._id, metrics=metrics, synchronous=True)
            self._sent.update(batch)
            self._last_step = max([self._last_step, *(p.step for p in batch if p.key == data.MARKER)])

    def _send_tags(self, client: Any) -> None:
        from mlflow.entities import RunTag

        tags = data.tags(self.run) | self._more_tags
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
        table = data.episode_table(self.run)
        if table:
            # log_table appends to what an earlier export left: write the same format, replacing it.
            rows = [list(row) for row in zip(*table.values(), strict=True)]
            client.log_text(self._id, json.dumps({"columns": list(table), "data": rows}), "episodes.json")
            listed = json.dumps([{"path": "episodes.json", "type": "table"}])
            client.set_tag(self._id, "mlflow.loggedArtifacts", listed)

    def _send_traces(self, client: Any) -> None:
        """One trace an episode, one span a turn, for a few episodes; those already there are left alone."""
        import mlflow

        episodes = data.sampled_episodes(self.run, self._traces)
        if not episodes:
            return
        mlflow.set_tracking_uri(self.uri)  # tracing knows no other way to be told
        present = self._present_traces(client)
        for episode in episodes:
            if data.trace_name(episode) not in present:
                self._send_trace(client, episode)
        missing = len({data.trace_name(episode) for episode in episodes} - set(self._present_traces(client)))
        if missing:
            raise RuntimeError(f"{missing} of {len(episodes)} traces did not arrive")

    def _present_traces(self, client: Any) -> dict[str, str]:
        """Trace ids by episode."""
        traces = client.search_traces(
            locations=[self._experiment], run_id=self._id, include_spans=False, max_results=500
        )
        return {trace.info.tags.get("sage.episode", ""): trace.info.trace_id for trace in traces}

    def _delete_traces(self, client: Any) -> None:
        ids = list(self._present_traces(client).values())
        for batch in data.batches(ids, 100):
            client.delete_traces(self._experiment, trace_ids=batch)

    def _send_trace(self, client: Any, episode: dict[str, Any]) -> None:
        turns = episode.pop("played")
        start = 1_000_000 * data.step_times(self.run).get(episode["step"], 0)
        # Turns are not timed one by one; equal shares keep them in order and the sum true.
        share = int(1e9 * (episode["seconds"] or 0.0) / max(1, len(turns)))
        keys = ("phase", "step", "split", "task", "task_type", "rollout", "method", "seed")
        root = client.start_trace(
            name=f"{episode['status']}: {episode['goal'] or episode['task']}"[:200],
            span_type="AGENT",
            inputs={"goal": episode["goal"], "scene": episode["scene"]},
            attributes={name: episode[name] for name in keys},
            tags={"sage.episode": data.trace_name(episode)} | {n: episode[n] for n in ("status", "phase")},
            experiment_id=self._experiment,
            start_time_ns=start,
            run_id=self._id,
        )
        for i, turn in enumerate(turns):
            span = client.start_span(
                name=f"turn {turn['turn']}" + (f" {turn['label']}" if turn["label"] else ""),
                trace_id=root.trace_id,
                parent_id=root.span_id,
                span_type="TOOL",
                inputs={"observation": turn["observation"]},
                attributes={name: turn[name] for name in _TURN_ATTRIBUTES if turn[name] is not None},
                start_time_ns=start + i * share,
            )
            client.end_span(
                trace_id=root.trace_id,
                span_id=span.span_id,
                outputs={name: turn[name] for name in ("thought", "action", "feedback")},
                end_time_ns=start + (i + 1) * share,
            )
        client.end_trace(
            root.trace_id,
            outputs={name: episode[name] for name in ("status", "won", "score", "turns")},
            end_time_ns=start + len(turns) * share,
        )

    def _set_state(self, client: Any) -> None:
        status = self.run.status()
        if status is None or self.run.is_at_work(status):
            return
        state = {"done": "FINISHED", "failed": "FAILED"}.get(status.state, "KILLED")
        ended = int(1000 * (status.ended or status.heartbeat))
        client.set_terminated(self._id, status=state, end_time=ended)


_TURN_ATTRIBUTES = (
    "label",
    "weight",
    "confidence",
    "effective_weight",
    "failure",
    "judge_reply",
    "oracle",
    "divergence",
    "teacher_entropy",
    "expert_distance_before",
    "expert_distance_after",
    "answer_tokens",
    "truncated",
)


def export(run_dir: Path, uri: str = "auto") -> str:
    """Export a run directory in this process; returns the MLflow run id. Raises what MLflow raises."""
    for name, value in SHORT_RETRIES.items():
        os.environ.setdefault(name, value)
    return RunExport(run_dir, resolve_uri(uri)).sync(final=True)


def open_experiment(uri: str, name: str) -> str:
    """Experiment id; makes store and experiment where they are missing, one process at a time.

    Several processes that open a fresh store at once race in its migration and fail.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    address, _, _ = uri.partition("?")  # a query is no part of the file's name, and may hold a secret
    database = Path(address.removeprefix("sqlite:///")) if address.startswith("sqlite:///") else None
    with _lock(uri, database):
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # Beside the database: MLflow's own default is the current directory of whoever came first.
            where = (database.parent / "mlartifacts" / name).as_uri() if database else None
            try:
                return client.create_experiment(name, artifact_location=where)
            except MlflowException:
                experiment = client.get_experiment_by_name(name)  # another machine was faster
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id


def _lock(uri: str, database: Path | None) -> AbstractContextManager[Any]:
    if uri.startswith("postgresql"):
        return _advisory_lock(uri)
    if database is None:
        return nullcontext()
    database.parent.mkdir(parents=True, exist_ok=True)
    return locked(Path(f"{database}.lock"))


@contextmanager
def _advisory_lock(uri: str) -> Iterator[None]:
    """PostgreSQL's own lock, which holds over machines and ends with the connection."""
    from sqlalchemy import create_engine, text

    engine = create_engine(uri, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
            yield
    finally:
        engine.dispose()


def _tracking(run: RunDir) -> dict[str, Any]:
    """The run's own tracking settings."""
    import yaml

    path = run.path / "config.yaml"
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file():  # a device would be read without end
            raise Unreadable(f"{path} is no file")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Unreadable(f"{path} cannot be read as a config") from error
    tracking = config.get("tracking") if isinstance(config, dict) else None
    return tracking if isinstance(tracking, dict) else {}


def one_sentence(error: BaseException, uri: str) -> str:
    """What went wrong with the store, without a traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, DamagedRecords | Unreadable):
        return text.rstrip(".")
    if isinstance(error, ModuleNotFoundError):
        return f"MLflow cannot be imported ({text}); install it with `pip install 'sage-opd[mlflow]'`"
    if uri.startswith("http") and any(sign in text for sign in ("Max retries", "Connection", "timed out")):
        return f"the server {redact(uri)} cannot be reached"
    return f"{redact(uri)} answered {type(error).__name__}: {redact(text)[:200].rstrip('.')}"


def serve(uri: str, poll_s: float) -> int:
    """Follow run directories named on stdin (JSON lines) until it closes or the parent dies.

    One JSON line to stdout for each directory when its export is complete or has failed for good.
    """
    return _Followed(uri).serve(poll_s)


class _Followed:
    """The run directories that a server follows, each exported a little at a time."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._parent = os.getppid()
        self._wanted: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._exports: dict[str, RunExport] = {}
        self._not_before: dict[str, float] = {}
        """Run directory -> the monotonic time before which it is left alone."""
        self._closing = self._failed = False

    def serve(self, poll_s: float) -> int:
        """Returns 1 where any export has failed for good, else 0."""
        threading.Thread(target=self._listen, daemon=True).start()
        while self._exports or not self._closing:
            self._take_messages(0.0 if self._closing else poll_s)
            # Forked children of the parent may hold the pipe open after its death.
            self._closing = self._closing or os.getppid() != self._parent
            for path in list(self._exports):
                self._look_at(path)
        return int(self._failed)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._wanted.put(json.loads(line))
        self._wanted.put(None)

    def _take_messages(self, timeout_s: float) -> None:
        try:
            message = self._wanted.get(timeout=timeout_s)
            while True:
                if message is None:
                    self._closing = True
                else:
                    path = message.pop("run_dir")
                    self._exports[path] = RunExport(Path(path), self.uri, **message)
                message = self._wanted.get_nowait()
        except queue.Empty:
            pass

    def _look_at(self, path: str) -> None:
        """Export what is new of a run, unless it was looked at just now; at its end answer and forget it."""
        exporting = self._exports[path]
        status = exporting.run.status()
        final = self._closing or (status is not None and status.state != "running")
        if not final and time.monotonic() < self._not_before.get(path, 0.0):
            return
        result = self._synced(path, exporting, final)
        if final:
            del self._exports[path]
            self._failed = self._failed or bool(result["error"])
            try:
                print(json.dumps(result), flush=True)
            except BrokenPipeError:
                sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the parent is gone; go on exporting

    def _synced(self, path: str, exporting: RunExport, final: bool) -> dict[str, str]:
        result = {"run_dir": path, "run_id": "", "error": ""}
        started = time.process_time()
        try:
            result["run_id"] = exporting.sync(final)
            # A long run's tables take long to read: stay below a tenth of one core.
            self._not_before[path] = time.monotonic() + min(9 * (time.process_time() - started), 60)
        except Exception as error:
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            result["error"] = one_sentence(error, self.uri)
            self._not_before[path] = time.monotonic() + RETRY_S
        return result


def main(arguments: list[str] | None = None) -> int:
    """Command line; exits 1 where any run directory could not be exported."""
    parser = argparse.ArgumentParser(prog="python -m sage.records.mlflow.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run_dir", nargs="*", type=Path, help="attempt folders: runs/<digest12>/attempt_<n>")
    parser.add_argument("--uri", default="auto", help="default: MLFLOW_TRACKING_URI, else mlflow.db here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--poll", type=float, default=5.0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    guard_streams()
    uri = resolve_uri(options.uri)
    if options.serve:
        os.nice(10)  # the run's own cores come first
        return serve(uri, options.poll)
    failed = False
    for run_dir in options.run_dir:
        attempt = open_attempt(run_dir)
        for note in attempt.notes:
            print(note, file=sys.stderr)
        if not attempt.is_usable:
            if not attempt.notes:
                print(f"{run_dir} is no run directory: it has no run.json.", file=sys.stderr)
            failed = True
            continue
        try:
            print(f"{run_dir}: MLflow run {export(run_dir, uri)} in {redact(uri)}")
        except Exception as error:
            print(f"{run_dir}: not exported, {one_sentence(error, uri)}.", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

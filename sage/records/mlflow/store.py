"""The store that runs and studies go to: where it is, how it is opened, what is said when it fails."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sage.locks import locked
from sage.records.files import Unreadable, read_object
from sage.redaction import redact

SHORT_RETRIES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Defaults of the child's environment; the user's own win. MLflow's would retry a dead server for minutes."""
OWN_ADDRESS = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves when it is told nothing else."""
WORKFLOW = "workflowType=machine_learning"
"""What MLflow's pages are told, else they are about agents and their traces."""
KIND = "mlflow.experimentKind"
TRAINING = "custom_model_development"
"""Of an experiment whose pages are about training runs; traces make MLflow guess that it is about agents."""
_LOCK_KEY = 0x5A6E0BD
"""Of the advisory lock in PostgreSQL; any number that nobody else takes."""


def resolve_uri(uri: str) -> str:
    """`auto` is MLFLOW_TRACKING_URI, else mlflow.db in the current directory; makes SQLite paths absolute."""
    if uri == "auto":
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    relative = uri.removeprefix("sqlite:///")
    if relative != uri and not relative.startswith(("/", ":memory:")):
        uri = f"sqlite:///{Path(relative).resolve()}"
    return uri


def view_hint(uri: str, experiment: str = "") -> str:
    """How to look at the list of runs of an experiment (its id, where it is known): MLflow starts with
    another page."""
    place = f"#/experiments/{experiment}/runs?{WORKFLOW}" if experiment else ""
    if uri.startswith(("http://", "https://")):
        return f"open {redact(uri).rstrip('/')}{'/' if place else ''}{place}"
    command = shlex.join(["mlflow", "ui", "--backend-store-uri", redact(uri)])
    return f"{command}, then open {OWN_ADDRESS}/{place}" if place else command


def experiment_of(run_dir: Path) -> str:
    """Id of the experiment that a run directory was sent to; empty where it was not, or cannot be read."""
    try:
        return str((read_object(run_dir / "mlflow.json") or {}).get("experiment") or "")
    except Unreadable:
        return ""


def batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Consecutive lists of at most `size`."""
    items = list(items)
    return (items[start : start + size] for start in range(0, len(items), size))


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
                return client.create_experiment(name, artifact_location=where, tags={KIND: TRAINING})
            except MlflowException:
                experiment = client.get_experiment_by_name(name)  # another machine was faster
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        if KIND not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, KIND, TRAINING)
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


def one_sentence(error: BaseException, uri: str) -> str:
    """What went wrong with the store, without a traceback."""
    text = " ".join(str(error).split())
    from sage.records.tables import DamagedRecords

    if isinstance(error, DamagedRecords | Unreadable):
        return text.rstrip(".")
    if isinstance(error, ModuleNotFoundError):
        return f"MLflow cannot be imported ({text}); install it with `pip install 'sage-opd[mlflow]'`"
    if uri.startswith("http") and any(sign in text for sign in ("Max retries", "Connection", "timed out")):
        return f"the server {redact(uri)} cannot be reached"
    return f"{redact(uri)} answered {type(error).__name__}: {redact(text)[:200].rstrip('.')}"

"""The export to MLflow, against real stores in real files, and real processes that die."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage.config.load import load
from sage.config.schema import RunConfig
from sage.records.identity import Identity
from sage.records.loggers import curves, labels, samples
from sage.records.mlflow.follow import Exporter, export_command, is_exported
from sage.records.mlflow.store import (
    KIND,
    SHORT_RETRIES,
    TRAINING,
    experiment_of,
    open_experiment,
    resolve_uri,
    view_hint,
)
from sage.records.rundir import RunDir, new_attempt
from sage.records.schema import TABLES
from sage.records.summary import summarize
from sage.records.system import FILE
from sage.records.tables import Tables
from tests.postgres import postgres_server

from .conftest import record_evaluation, record_run, record_step, wait_for

ROOT = Path(__file__).parents[2]

# Of what MLflow, SQLAlchemy and opentelemetry warn about inside themselves nothing is ours.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's migration takes seconds: done once, then the file is copied."""
    os.environ.update({name: os.environ.get(name, value) for name, value in SHORT_RETRIES.items()})
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> str:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs_in(uri: str) -> list[Any]:
    client = client_of(uri)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def export(run: RunDir, uri: str) -> str:
    from sage.records.mlflow.export import export

    return export(run.path, uri)


def test_a_finished_run_arrives_completely(finished: RunDir, store: str, tmp_path: Path) -> None:
    run_id = export(finished, store)
    client = client_of(store)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("sage_opd-alfworld-s0-")
    assert float(run.data.params["trainer.learning_rate"]) == load([]).trainer.learning_rate
    assert run.data.params["seed"] == "0"
    assert len(run.data.params["prompt.styles.react.demonstration"]) < 250
    assert not any(name.startswith(("tracking", "launch")) for name in run.data.params)
    assert run.data.tags["sage.digest"] == finished.identity().digest
    assert run.data.tags["sage.model.student"] == "a" * 64
    assert run.data.tags["source"] == "generated"
    assert run.data.tags["sage.dirty"] in ("true", "false")
    metrics = run.data.metrics
    assert len(metrics) <= curves.MAX_CURVES
    assert metrics["eval/valid_unseen/success_rate"] == 0.6
    assert metrics["eval/valid_unseen/n"] == 10
    assert metrics["eval/valid_unseen/not_ok"] == 1
    assert metrics["whole_run/before/valid_unseen"] == 0.2
    assert metrics["whole_run/gain/valid_unseen"] == pytest.approx(40)
    loss = client.get_metric_history(run_id, "distill/loss")
    assert [(point.step, point.value) for point in loss] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    names = {file.path for folder in ("tables", "run") for file in client.list_artifacts(run_id, folder)}
    assert {f"tables/{table}.parquet" for table in TABLES} <= names
    assert {"run/config.yaml", "run/provenance.json", "run/code.diff", "run/log.txt"} <= names
    assert run.inputs.dataset_inputs[0].dataset.digest == "f" * 32
    assert (tmp_path / "mlartifacts" / "sage").is_dir()


def test_the_comparison_table_is_one_that_mlflow_reads(finished: RunDir, store: str) -> None:
    run_id = export(finished, store)
    export(finished, store)
    client = client_of(store)
    table = client.load_table(client.get_run(run_id).info.experiment_id, "episodes.json", [run_id])
    assert len(table) == 11
    assert list(table.columns)[:5] == ["split", "task", "task_type", "won_before", "won_after"]
    assert table.won_before.sum() == 2
    assert table.won_after.sum() == 6
    listed = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert listed == [{"path": name, "type": "table"} for name in ("episodes.json", "turns.json")]


def test_what_methods_differ_in_comes_first_in_a_comparison(finished: RunDir, store: str) -> None:
    """MLflow's comparison offers the first three params that differ, by name (character by character)."""
    names = sorted(client_of(store).get_run(export(finished, store)).data.params)
    arm = ["confidence", "curriculum", "divergence", "intervention", "method", "normalization"]
    assert names[:6] == [f"arm.{part}" for part in arm]
    assert labels.params(finished)["arm.intervention"] == "judge"


def test_a_view_of_methods_side_by_side_is_saved_once(finished: RunDir, store: str) -> None:
    client = client_of(store)
    experiment = client.get_run(export(finished, store)).info.experiment_id
    key = "mlflow.sharedViewState.sage-alfworld"
    view = json.loads(client.get_experiment(experiment).tags[key])
    assert view["name"] == "alfworld: methods compared"
    state = json.loads(view["state"])
    assert {name: view[name] for name in state} == state
    axes = state["compareRunCharts"][0]["selectedParams"]
    assert axes == ["arm.method", "arm.intervention", "arm.confidence"]
    known = client.get_run(runs_in(store)[0].info.run_id).data
    shown = {name for chart in state["compareRunCharts"] for name in chart.get("selectedMetricKeys", [])}
    assert shown <= set(known.metrics)
    assert set(axes) <= set(known.params)
    client.set_experiment_tag(experiment, key, "the user's own")
    export(finished, store)
    assert client.get_experiment(experiment).tags[key] == "the user's own"


def test_single_values_come_after_the_curves(finished: RunDir) -> None:
    last = {point.key for point in curves.points(finished) if "before" in point.key}
    last |= {point.key for point in curves.final_points(finished)}
    going = {point.key for point in curves.points(finished)} - last
    assert len(last) == 4
    assert max(going) < min(last)
    assert min(going).startswith("distill/")


def test_the_experiment_opens_on_its_runs_and_keeps_another_kind(store: str) -> None:
    client = client_of(store)
    fresh = open_experiment(store, "fresh")
    assert client.get_experiment(fresh).tags[KIND] == TRAINING
    old = client.create_experiment("old")
    open_experiment(store, "old")
    assert client.get_experiment(old).tags[KIND] == TRAINING
    client.set_experiment_tag(old, KIND, "genai_development")
    open_experiment(store, "old")
    assert client.get_experiment(old).tags[KIND] == "genai_development"


def test_the_printed_address_is_the_list_of_runs(finished: RunDir, store: str) -> None:
    run = client_of(store).get_run(export(finished, store))
    experiment = experiment_of(finished.path)
    assert experiment == run.info.experiment_id
    place = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert view_hint(store, experiment).endswith(f", then open http://127.0.0.1:5000/{place}")
    assert view_hint("http://me:secret@host:80/", experiment) == f"open http://***@host:80/{place}"
    assert experiment_of(finished.path.parent) == ""


def test_traces_show_won_and_lost_episodes_turn_by_turn(finished: RunDir, store: str) -> None:
    run_id = export(finished, store)
    client = client_of(store)
    experiment = client.get_run(run_id).info.experiment_id
    traces = client.search_traces(locations=[experiment], run_id=run_id)
    assert len(traces) == 4
    assert {(t.info.tags["phase"], t.info.tags["status"]) for t in traces} == {
        *(("train", "won"), ("train", "turn_budget"), ("eval", "won"), ("eval", "turn_budget"))
    }
    (trace,) = [t for t in traces if t.info.tags["sage.episode"] == "train/2/train/train-3-0/0"]
    root, *turns = trace.data.spans
    assert root.outputs["won"] is True
    assert [span.name for span in turns] == ["turn 0 SKIP", "turn 1 DET_FAIL", "turn 2 WEAK"]
    assert turns[2].inputs == {"observation": "You see 2."}
    assert turns[2].outputs["action"] == "go to shelf 2"
    assert turns[2].attributes["weight"] == 0.5
    assert turns[2].attributes["confidence"] == 0.8
    assert root.end_time_ns - root.start_time_ns == pytest.approx(0.5e9, rel=1e-6)


def test_exporting_again_changes_nothing(finished: RunDir, store: str) -> None:
    first = export(finished, store)

    def state() -> Any:
        client = client_of(store)
        run = client.get_run(first)
        points = {name: len(client.get_metric_history(first, name)) for name in run.data.metrics}
        traces = client.search_traces(locations=[run.info.experiment_id], include_spans=False)
        return run.to_dictionary(), points, sorted(trace.info.trace_id for trace in traces)

    before = state()
    assert export(finished, store) == first
    assert state() == before
    assert len(runs_in(store)) == 1


def test_a_half_finished_run_is_exported_and_later_completed(run: RunDir, store: str) -> None:
    run.start(steps=3)
    tables = Tables(run.path)
    tables.resume(0)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10)
    record_step(tables, 1)
    first = export(run, store)
    assert client_of(store).get_run(first).info.status == "RUNNING"
    run.fail("The machine was needed.")
    assert export(run, store) == first
    assert not is_exported(run.path)
    info = client_of(store).get_run(first)
    assert info.info.status == "FAILED"
    assert info.data.tags["sage.reason"] == "The machine was needed."
    run.start(steps=3)
    tables.resume(1)
    for step in (2, 3):
        record_step(tables, step)
    record_evaluation(tables, 3, "valid_unseen", won=6, n=10)
    tables.consolidate()
    run.done(step=3)
    assert export(run, store) == first
    assert is_exported(run.path)
    info = client_of(store).get_run(first)
    assert (info.info.status, info.data.tags["sage.state"]) == ("FINISHED", "done")
    assert info.data.tags["sage.reason"] == ""
    assert [p.step for p in client_of(store).get_metric_history(first, "distill/loss")] == [1, 2, 3]


def test_steps_that_were_dropped_leave_no_trace(finished: RunDir, store: str) -> None:
    """A resume from an earlier checkpoint: MLflow must not mix the two histories."""
    first = export(finished, store)
    tables = Tables(finished.path)
    tables.resume(1)
    for step in (2, 3):
        record_step(tables, step, won=2)
    second = export(finished, store)
    assert second != first
    (run,) = runs_in(store)
    assert run.info.run_id == second
    client = client_of(store)
    assert [p.value for p in client.get_metric_history(second, "distill/success_rate")] == [0.25, 0.5, 0.5]
    traces = client.search_traces(locations=[run.info.experiment_id], include_spans=False)
    assert {trace.info.request_metadata["mlflow.sourceRun"] for trace in traces} == {second}


def test_attempts_are_separate_runs(run: RunDir, config: RunConfig, store: str) -> None:
    second = new_attempt(run.path.parent.parent, run.identity(), config)
    for attempt in (run, second):
        attempt.start()
        record_run(attempt.path, steps=1)
        attempt.done()
        export(attempt, store)
    assert sorted(r.data.tags["sage.attempt"] for r in runs_in(store)) == ["1", "2"]
    assert len({r.data.tags["sage.run"] for r in runs_in(store)}) == 1


def test_turns_are_sampled_evenly_over_training_and_say_what_was_cut(run: RunDir) -> None:
    run.start()
    tables = Tables(run.path)
    tables.resume(0)
    for step in range(1, 41):
        record_step(tables, step, won=2, episodes=4)
    table = samples.turn_table(run)
    steps = sorted(set(table["step"]))
    assert (len(steps), steps[0], steps[-1]) == (samples.SAMPLED_STEPS, 0, 39)
    assert {b - a for a, b in itertools.pairwise(steps)} == {2, 3}
    assert len(table["turn"]) == samples.SAMPLED_STEPS * 2 * 3
    assert samples._cell("x" * 2000) == "x" * 600 + " ... (2,000 characters)"


def test_system_metrics_arrive_once(finished: RunDir, store: str) -> None:
    (finished.path / FILE).write_text('{"time": 5.0, "memory_mib": 7.5}\n{"time": 6.0, "memory_mib": 8}\n')
    run_id = export(finished, store)
    export(finished, store)
    points = client_of(store).get_metric_history(run_id, "system/memory_mib")
    assert [(p.step, p.value, p.timestamp) for p in points] == [(0, 7.5, 5000), (1, 8.0, 6000)]


def test_many_splits_stay_within_the_number_of_curves(run: RunDir) -> None:
    run.start()
    tables = record_run(run.path, steps=1)
    for i in range(12):
        record_evaluation(tables, 0, f"set {i}: a/b", won=1, n=2)
    names = {point.key for point in curves.points(run) + curves.final_points(run)}
    assert len(names) <= curves.MAX_CURVES
    assert "eval/set 11_ a_b/success_rate" in names


def test_a_child_process_follows_the_run_while_it_works(run: RunDir, store: str, tmp_path: Path) -> None:
    exporter = Exporter(store, tmp_path / "export.log", poll_s=0.2)
    run.start(steps=3)
    tables = Tables(run.path)
    tables.resume(0)
    record_step(tables, 1)
    exporter.follow(run.path)
    (live,) = wait_for(lambda: [r for r in runs_in(store) if "distill/loss" in r.data.metrics])
    assert live.info.status == "RUNNING"
    wait_for(lambda: "mlflow.loggedArtifacts" in runs_in(store)[0].data.tags)
    shown = client_of(store).download_artifacts(live.info.run_id, "turns.json", str(tmp_path))
    table = json.loads(Path(shown).read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    labelled = list(enumerate(("SKIP", "DET_FAIL", "WEAK")))
    assert [(row["turn"], row["label"]) for row in rows] == labelled * 2
    assert [row["won"] for row in rows] == [True] * 3 + [False] * 3
    record_step(tables, 2)
    wait_for(lambda: runs_in(store)[0].data.metrics["distill/loss"] == 0.5)
    record_step(tables, 3)
    tables.consolidate()
    run.done(step=3)
    (result,) = exporter.finish()
    assert (result.error, result.run_id) == ("", live.info.run_id)
    (done,) = runs_in(store)
    assert done.info.status == "FINISHED"
    assert done.data.metrics["distill/loss"] == pytest.approx(1 / 3)


def test_the_newest_checkpoints_model_is_sent_on_demand_and_once(
    finished: RunDir, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sage.records.mlflow.export import main

    line = [str(finished.path), "--uri", store, "--model"]
    assert main(line) == 1
    assert "holds no checkpoint with a model" in capsys.readouterr().err
    for step in (2, 10):
        student = finished.checkpoints / f"step-{step:06d}" / "student"
        student.mkdir(parents=True)
        (student / "config.json").write_text(f'{{"step": {step}}}')
        (student.parent / "files.json").write_text(f'{{"student/config.json": [{step}, 0]}}')
    (finished.checkpoints / "step-000011" / "student").mkdir(parents=True)
    (finished.checkpoints / "step-000011" / "student" / "config.json").write_text("{}")  # not whole
    assert main(line) == main(line) == 0
    (run,) = runs_in(store)
    client = client_of(store)
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (model.source_run_id, model.tags["sage.step"], model.status) == (run.info.run_id, "10", "READY")
    sent = Path(model.artifact_location.removeprefix("file://")) / "config.json"
    assert json.loads(sent.read_text()) == {"step": 10}


def test_an_unreachable_server_costs_one_sentence(
    finished: RunDir, capsys: pytest.CaptureFixture[str], migrated: Path
) -> None:
    from sage.records.mlflow.export import main

    assert main([str(finished.path), "--uri", "http://127.0.0.1:9"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"{finished.path}: not exported, the server http://127.0.0.1:9 cannot be reached."


def test_a_store_that_takes_too_long_is_left_behind(finished: RunDir, store: str, tmp_path: Path) -> None:
    exporter = Exporter(store, tmp_path / "export.log")
    exporter.follow(finished.path)
    (result,) = exporter.finish(timeout_s=0.1)
    assert "did not take the run within 0 s" in result.error
    assert export_command(finished.path, store) in result.error
    assert "\n" not in result.error


def test_a_child_that_cannot_start_costs_one_sentence(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    exporter = Exporter("sqlite:///a.db", tmp_path / "export.log")
    exporter.follow(finished.path)
    (result,) = exporter.finish()
    assert "cannot be started" in result.error


def test_the_command_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sage.records.mlflow.export import main

    assert main([str(tmp_path)]) == 1
    assert "is no run directory" in capsys.readouterr().err


def test_uris(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri("auto") == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert resolve_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert resolve_uri("http://host:5000") == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert resolve_uri("auto") == "http://elsewhere"
    assert view_hint("http://me:secret@host") == "open http://***@host"


def test_only_the_exports_import_mlflow_and_only_inside_functions() -> None:
    importing = [
        (path.name, line)
        for path in (ROOT / "sage").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import mlflow", "from mlflow"))
    ]
    assert importing
    assert {name for name, _ in importing} == {"export.py", "store.py", "study.py", "traces.py"}
    assert all(line.startswith(" ") for _, line in importing)


@pytest.mark.slow
def test_a_killed_run_is_exported_as_killed(run: RunDir, store: str, tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from sage.records.mlflow.follow import Exporter
from sage.records.rundir import RunDir
from tests.records.conftest import Tables, record_step
run = RunDir(Path({str(run.path)!r}))
run.start(steps=9)
tables = Tables(run.path)
tables.resume(0)
Exporter({store!r}, Path({str(tmp_path / "log")!r})).follow(run.path)
record_step(tables, 1)
record_step(tables, 2)
print("ready", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    (left,) = wait_for(lambda: [r for r in runs_in(store) if r.info.status == "KILLED"])
    assert [p.step for p in client_of(store).get_metric_history(left.info.run_id, "distill/loss")] == [1, 2]


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URI of a store that nobody has opened yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fresh.db'}"
        return
    with postgres_server() as uri:
        yield uri


@pytest.mark.slow
def test_eight_processes_on_a_fresh_store_lose_nothing(
    tmp_path: Path, config: RunConfig, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts of a database store go below the current directory
    runs = []
    for seed in range(8):
        identity = Identity(config.digest_fields() | {"seed": seed}, "m" * 64)
        made = new_attempt(tmp_path / "runs", identity, load(["tracking.traces=0"]))
        made.start()
        record_run(made.path, steps=2)
        made.done()
        runs.append(made)
    uri = fresh
    search = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sage.records.mlflow.export", "--uri", uri]
    children = [subprocess.Popen([*command, str(made.path)], env=search) for made in runs]
    assert [child.wait(900) for child in children] == [0] * 8
    found = runs_in(uri)
    assert sorted(r.data.params["seed"] for r in found) == [str(seed) for seed in range(8)]
    assert {r.info.status for r in found} == {"FINISHED"}
    assert {r.data.metrics["distill/loss"] for r in found} == {0.5}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], subprocess.Popen[bytes]]]]:
    """(address, function that starts a real server there); whatever runs is ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
        command += ["--artifacts-destination", str(tmp_path / "served")]
        with (tmp_path / "server.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
        started.append(process)

        def up() -> bool:
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
            except OSError:
                return False

        wait_for(up, 300)
        return process

    yield f"http://127.0.0.1:{port}", start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_killing_the_server_mid_run_does_not_hurt_the_run(
    run: RunDir, server: tuple[str, Callable[[], subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    uri, start = server
    process = start()
    exporter = Exporter(uri, tmp_path / "export.log", poll_s=0.2)
    run.start(steps=3)
    tables = Tables(run.path)
    tables.resume(0)
    exporter.follow(run.path)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10)
    record_step(tables, 1)
    wait_for(lambda: [r for r in runs_in(uri) if "distill/loss" in r.data.metrics])

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    for step in (2, 3):
        record_step(tables, step)
    record_evaluation(tables, 3, "valid_unseen", won=6, n=10)
    tables.consolidate()
    run.done(step=3)
    assert time.monotonic() - started < 2
    (result,) = exporter.finish()
    assert time.monotonic() - started < 60
    assert f"the server {uri} cannot be reached" in result.error
    assert summarize(run.path).splits[0].gain_points == pytest.approx(40)

    start()
    command = [sys.executable, "-m", "sage.records.mlflow.export", str(run.path), "--uri", uri]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (found,) = runs_in(uri)
    assert found.info.run_id in again.stdout
    assert found.info.status == "FINISHED"
    assert [p.step for p in client_of(uri).get_metric_history(found.info.run_id, "distill/loss")] == [1, 2, 3]
    assert len(client_of(uri).search_traces(locations=[found.info.experiment_id], include_spans=False)) == 4
    assert {file.path for file in client_of(uri).list_artifacts(found.info.run_id)} >= {"tables", "run"}

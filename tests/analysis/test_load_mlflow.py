"""The same study read from its run directories and from the MLflow experiment that they were exported to."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pandas as pd
import pytest

from analysis.errors import Refusal
from analysis.load import load
from analysis.summary import tables as summary_tables
from sage.view.answers import PLACE, Answers
from sage.view.cli import _root
from sage.view.library import Library

TABLES = ("episodes", "turns", "steps")


SMALL = [
    *("env.generated.train=12", "env.generated.valid_seen=6", "env.generated.valid_unseen=6"),
    *("env.games=generated", "env.turn_budget=4", "trainer.steps=1", "trainer.tasks_per_step=2"),
    *("speed.threads=1", "evaluation.limit=3", "tracking.mlflow=false"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(runs folder, `mlflow:` input, client, experiment) of two real runs, exported."""
    from mlflow.tracking import MlflowClient

    from sage.config.load import load as config
    from sage.launch.execute import execute

    folder = tmp_path_factory.mktemp("mlflow")
    uri, runs = f"sqlite:///{folder / 'mlflow.db'}", folder / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))
        for method in ("opd", "sage_opd"):
            outcome = execute(config([*SMALL, f"launch.runs_dir={runs}", f"method={method}"]), export=False)
            assert outcome.state == "done", outcome.reason
    attempts = [str(path) for path in sorted(runs.glob("*/attempt_*"))]
    command = [sys.executable, "-m", "sage.records.mlflow.export", *attempts, "--uri", uri]
    subprocess.run(command, check=True, capture_output=True)
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    return runs, f"mlflow:{experiment.name}@{uri}", client, experiment.experiment_id


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [c for c in ("run", "phase", "step", "split", "task", "rollout", "turn") if c in frame]
    return frame.sort_values(keys).reset_index(drop=True)


def test_mlflow_and_run_directories_hold_the_same(study):
    runs, source, _, _ = study
    here, there = load([str(runs)], TABLES), load([source], TABLES)
    for table in TABLES:
        pd.testing.assert_frame_equal(plain(getattr(here, table)), plain(getattr(there, table)))
    assert there.runs["used"].all()
    for name in ("method", "env", "seed", "state"):
        assert plain(there.runs)[name].tolist() == plain(here.runs)[name].tolist()
    one, other = (summary_tables(records)["runs"] for records in (here, there))
    pd.testing.assert_frame_equal(one, other)


def test_a_run_that_died_before_it_recorded_anything_is_listed_not_dropped(study):
    _, source, client, experiment = study
    tags = {"sage.run": "abcdefabcdef", "method": "opd", "env": "alfworld"}
    lost = client.create_run(experiment, tags=tags)
    client.set_terminated(lost.info.run_id, "KILLED")
    try:
        records = load([source], TABLES)
        row = records.runs[records.runs["run"] == "abcdefabcdef"].iloc[0]
        assert row["state"] == "failed"
        assert not row["used"]
    finally:
        client.delete_run(lost.info.run_id)


def test_an_unknown_experiment_is_refused_with_the_known_ones(study):
    _, source, _, _ = study
    uri = source.partition("@")[2]
    with pytest.raises(Refusal, match=r"no MLflow experiment 'nope' there; its experiments are: .*sage"):
        load([f"mlflow:nope@{uri}"])


def test_the_viewer_shows_an_experiment_as_it_shows_the_folders(study):
    runs, source, _, _ = study
    with ExitStack() as stack:
        folder = _root(source, stack)
        there = Answers(Library([folder]))
        here = Answers(Library([runs]))
        listed = {run["key"]: run for run in there.runs()["runs"]}
        assert set(listed) == {run["key"] for run in here.runs()["runs"]}
        for key, line in listed.items():
            assert (line["state"], line["notes"]) == ("done", [])
            assert there.run(key)["rates"] == here.run(key)["rates"]
            assert there.episodes(key, {}) == here.episodes(key, {})
            trained = there.episodes(key, {"phase": "train"})["rows"][0]
            place = {name: trained[name] for name in PLACE}
            assert there.episode(key, place) == here.episode(key, place)
            assert there.episode(key, place)["tokens"]
    assert not folder.exists()

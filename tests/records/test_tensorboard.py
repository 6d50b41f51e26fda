"""TensorBoard's event files, read back by TensorBoard's own reader; and loggers beside MLflow as such."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sage.config.load import load
from sage.errors import ConfigError
from sage.records.identity import Identity
from sage.records.loggers.export import StepwiseExport, explain, main
from sage.records.loggers.note import is_sent, note_name
from sage.records.loggers.open import Exports, LoggerExporter, any_behind, look_lines
from sage.records.rundir import RunDir, new_attempt
from sage.records.tables import Tables
from tests.records.conftest import record_evaluation, record_run, record_step, wait_for

LOSS = "distill/loss"
OUTSIDE = Path(__file__).parents[1] / "outside" / "conf"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A fresh attempt whose config asks for event files below `tmp_path`."""
    words = ["tracking=tensorboard", f"tracking.loggers.tensorboard.folder={tmp_path / 'board'}"]
    config = load(words)
    return new_attempt(tmp_path / "runs", Identity.of(config, "f" * 64), config)


def event_file(tmp_path: Path) -> Path:
    (file,) = tmp_path.glob("board/*/events.out.tfevents.*")
    return file


def board(tmp_path: Path) -> Any:
    """TensorBoard's reader over the one run there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(event_file(tmp_path).parent), size_guidance={}).Reload()


def values(tmp_path: Path, tag: str) -> list[tuple[int, float]]:
    """A curve, from every record of the file: what a reader that drops nothing sees."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        (event.step, round(float(value.tensor.float_val[0]), 4))
        for event in EventFileLoader(str(event_file(tmp_path))).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def test_tensorboard_reads_curves_settings_turns_and_the_end(finished: RunDir, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata

    StepwiseExport(finished.path, "tensorboard").sync(final=True)
    read = board(tmp_path)
    assert event_file(tmp_path).parent.name == f"sage_opd-alfworld-s0-{finished.identity().run[:6]}"
    tags = read.Tags()
    assert {LOSS, "eval/valid_unseen/success_rate", "whole_run/gain/valid_unseen"} <= set(tags["scalars"])
    points = read.Scalars(LOSS)
    assert [(p.step, p.value) for p in points] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert points[0].wall_time == pytest.approx(time.time(), abs=3600)
    assert [p.value for p in read.Scalars("eval/valid_unseen/success_rate")] == pytest.approx([0.2, 0.6])
    assert [p.value for p in read.Scalars("whole_run/gain/valid_unseen")] == [pytest.approx(40)]

    def hparams(tag: str) -> bytes:
        return bytes(read.SummaryMetadata(tag).plugin_data.content)

    start = metadata.parse_session_start_info_plugin_data(hparams(metadata.SESSION_START_INFO_TAG))
    assert start.hparams["arm.intervention"].string_value == "judge"
    end = metadata.parse_session_end_info_plugin_data(hparams(metadata.SESSION_END_INFO_TAG))
    assert end.status == 1  # STATUS_SUCCESS
    shown = read.Tensors("turns")[-1].tensor_proto.string_val[0].decode()
    assert "| DET\\_FAIL |" in shown
    assert "go to shelf 2" in shown


def test_sending_again_doubles_nothing(finished: RunDir, tmp_path: Path) -> None:
    for _ in range(2):
        StepwiseExport(finished.path, "tensorboard").sync(final=True)
    assert [step for step, _ in values(tmp_path, LOSS)] == [1, 2, 3]
    assert [step for step, _ in values(tmp_path, "eval/valid_unseen/success_rate")] == [0, 3]
    assert is_sent(finished.path, "tensorboard")


def test_a_run_that_goes_back_to_a_checkpoint_leaves_one_history(run: RunDir, tmp_path: Path) -> None:
    run.start(steps=3)
    tables = Tables(run.path)
    tables.resume(0)
    record_evaluation(tables, 0, "valid_unseen", won=2, n=10)
    for step in (1, 2):
        record_step(tables, step)
    first = StepwiseExport(run.path, "tensorboard")
    first.sync(final=False)
    assert values(tmp_path, "distill/success_rate") == [(1, 0.25), (2, 0.25)]
    tables.resume(1)
    for step in (2, 3):
        record_step(tables, step, won=2)
    again = StepwiseExport(run.path, "tensorboard")
    assert again._about().held == -1
    again.sync(final=True)
    assert values(tmp_path, "distill/success_rate") == [(1, 0.25), (2, 0.5), (3, 0.5)]
    assert not is_sent(run.path, "tensorboard")
    # The first one's file is gone from under it: it begins again and writes no second one beside.
    record_step(tables, 4)
    first.sync(final=False)
    assert [step for step, _ in values(tmp_path, LOSS)] == [1, 2, 3, 4]


def test_attempts_have_folders_of_their_own(run: RunDir, tmp_path: Path) -> None:
    config = load(["tracking=tensorboard", f"tracking.loggers.tensorboard.folder={tmp_path / 'board'}"])
    second = new_attempt(run.path.parent.parent, run.identity(), config)
    for attempt in (run, second):
        attempt.start()
        record_run(attempt.path, steps=1)
        StepwiseExport(attempt.path, "tensorboard").sync(final=True)
    names = sorted(path.name for path in (tmp_path / "board").iterdir())
    assert names[1] == f"{names[0]}-attempt_2"


def test_a_child_process_follows_the_run_while_it_works(run: RunDir, tmp_path: Path) -> None:
    exporter = LoggerExporter("tensorboard", tmp_path / "export.log", poll_s=0.2)
    run.start(steps=2)
    tables = Tables(run.path)
    tables.resume(0)
    record_step(tables, 1)
    exporter.follow(run.path)
    wait_for(lambda: list(tmp_path.glob("board/*/events*")) and len(values(tmp_path, LOSS)) == 1, 120)
    record_step(tables, 2)
    wait_for(lambda: len(values(tmp_path, LOSS)) == 2, 120)
    tables.consolidate()
    run.done(step=2)
    (result,) = exporter.finish()
    assert result.error == ""
    assert is_sent(run.path, "tensorboard")


def test_a_logger_that_fails_costs_one_sentence(finished: RunDir, tmp_path: Path) -> None:
    (tmp_path / "board").write_text("in the way")
    exporter = LoggerExporter("tensorboard", tmp_path / "export.log", poll_s=0.2)
    exporter.follow(finished.path)
    (result,) = exporter.finish()
    assert result.error.startswith("Not in tensorboard: it answered ")
    by_hand = f"python -m sage.records.loggers.export {finished.path} --logger tensorboard"
    assert f"export them later with `{by_hand}`" in result.error
    assert len(result.error) < 400 + len(str(finished.path)) * 2 + len(str(tmp_path))
    assert not is_sent(finished.path, "tensorboard")
    (tmp_path / "board").unlink()
    assert main([str(finished.path), "--logger", "tensorboard"]) == 0
    assert len(values(tmp_path, LOSS)) == 3


def test_a_package_that_is_missing_is_named_with_the_way_to_it(finished: RunDir, tmp_path: Path) -> None:
    """The real command, where the import finds nothing."""
    hidden = tmp_path / "hidden" / "tensorboard"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'tensorboard'\")")
    search = os.pathsep.join([str(hidden.parent), *sys.path])
    command = [sys.executable, "-m", "sage.records.loggers.export", str(finished.path)]
    ended = subprocess.run(
        [*command, "--logger", "tensorboard"],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "install it with `pip install 'sage-opd[tensorboard]'`" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert explain(ImportError("x"), "mine") == "its package cannot be imported (x)"


def test_a_logger_that_the_run_does_not_have_is_refused(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished.path), "--logger", "nope"]) == 1
    assert "config.yaml has no tracking.loggers.nope." in capsys.readouterr().err


def test_a_name_that_is_no_logger_leaves_nothing_behind_and_no_run_is_said(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(finished.path.parent.parent.rglob("*"))
    for name in ("../x", "a/../../../zz", "TensorBoard", ""):
        assert main([str(finished.path), "--logger", name]) == 1
        assert f"{name!r} is no logger that ships (tensorboard, trackio, wandb)" in capsys.readouterr().err
    assert sorted(finished.path.parent.parent.rglob("*")) == before
    with pytest.raises(SystemExit, match="2"):
        main(["--logger", "tensorboard"])
    assert "name an attempt folder" in capsys.readouterr().err


def test_a_run_that_was_made_without_it_is_sent_where_the_shipped_option_says(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare" / finished.path.parent.name / finished.path.name
    shutil.copytree(finished.path, bare)
    config = yaml.safe_load((bare / "config.yaml").read_text())
    config["tracking"]["loggers"] = {}
    (bare / "config.yaml").write_text(yaml.safe_dump(config))
    (bare / "logger_tensorboard.json").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    assert main([str(bare), "--logger", "tensorboard"]) == 0
    assert list((tmp_path / "tensorboard").rglob("events.*"))


def test_what_was_cut_off_is_made_up_for(finished: RunDir, tmp_path: Path) -> None:
    folder = f"tracking.loggers.tensorboard.folder={tmp_path / 'board'}"
    tracking = load(["tracking=tensorboard", folder]).tracking
    assert any_behind(tracking, [finished.path])
    exports = Exports(tracking, lambda label: tmp_path / f"{label}.log")
    exports.make_up_for([finished.path])
    assert [result.error for result in exports.finish()] == [""]
    assert not any_behind(tracking, [finished.path])
    again = Exports(tracking, lambda label: tmp_path / f"{label}.log")
    again.make_up_for([finished.path])
    assert again.finish() == []


def test_mlflow_and_others_are_chosen_together() -> None:
    both = load(["tracking=[mlflow,tensorboard]"]).tracking
    assert (both.mlflow, both.traces, list(both.loggers)) == (True, 3, ["tensorboard"])
    alone = load(["tracking=tensorboard"]).tracking
    assert (alone.mlflow, list(alone.loggers)) == (False, ["tensorboard"])
    assert load([]).tracking.loggers == {}
    assert load(["tracking=none"]).tracking.loggers == {}
    assert look_lines(both) == ["tensorboard: tensorboard --logdir tensorboard"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["+tracking.loggers.mlflow={name:tensorboard,folder:x}"], "switched on by tracking.mlflow=true"),
        (["+tracking.loggers.board={name:tensorbord,folder:x}"], "Did you mean 'tensorboard'"),
        (["tracking=tensorboard", "tracking.loggers.tensorboard.folder='s3://a/b'"], "not an address"),
        (["+tracking.loggers.a-b={name:tensorboard,folder:x}"], "a-b"),
    ],
)
def test_a_wrong_logger_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(words)


def test_a_logger_from_outside_is_fed_by_a_multirun(tmp_path: Path) -> None:
    line = ["-m", "sage", "-m", "--config-dir", str(OUTSIDE), "plugins=[tests.outside.plugin]", "env=dummy"]
    line += ["env.peak=1", "seed=0,1", "tracking=lines"]
    search = os.pathsep.join([str(OUTSIDE.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    given: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": search}}
    ended = subprocess.run([sys.executable, *line], capture_output=True, text=True, check=False, **given)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    files = sorted((tmp_path / "lines").glob("*.jsonl"))
    assert [file.name.split("-")[2] for file in files] == ["s0", "s1"]
    for file in files:
        *points, end = map(json.loads, file.read_text().splitlines())
        assert end == {"state": "done"}
        assert {point["key"] for point in points} >= {"eval/valid_seen/success_rate"}
    assert list((tmp_path / "runs").glob("*.log")) == []


def test_secrets_do_not_reach_a_logger(tmp_path: Path) -> None:
    secret = "hunter2hunter2"
    words = ["tracking=tensorboard", f"tracking.loggers.tensorboard.folder={tmp_path / 'board'}"]
    config = load([*words, f"name=http://me:{secret}@host"])
    run = new_attempt(tmp_path / "runs", Identity.of(config, "f" * 64), config)
    run.start(steps=1)
    record_run(run.path, steps=1)
    StepwiseExport(run.path, "tensorboard").sync(final=True)
    assert secret.encode() not in event_file(tmp_path).read_bytes()
    assert secret not in str(event_file(tmp_path))
    assert secret not in json.dumps(json.loads((run.path / note_name("tensorboard")).read_text()))

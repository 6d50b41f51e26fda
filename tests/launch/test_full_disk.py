"""A disk that fills up at any write: one sentence, a run marked failed, nothing half written, and it goes on.

The disk is a tmpfs of a few megabytes, which only root may mount; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage import run
from sage.config.load import load
from sage.config.schema import RunConfig
from sage.envs.made_once import made_once
from sage.errors import ConfigError
from sage.launch.execute import execute
from sage.records import provenance
from sage.records.faults import machine_fault
from sage.records.identity import Identity
from sage.records.rundir import RunDir
from sage.records.summary import summarize
from sage.records.tables import Tables
from sage.teacher.replies import Known, ReplyFile
from sage.training import checkpoint
from tests.records.conftest import record_evaluation, record_step
from tests.tiny_models import tiny_lm


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """Until not one byte more is taken."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(b"\1" * size)
            except OSError:
                continue


def free(disk: Path) -> None:
    (disk / "filler").unlink()


def checkpoint_of(folder: RunDir) -> None:
    checkpoint.save(folder.checkpoints, 2, tiny_lm(0), {"numbers": list(range(10))})


WRITES: dict[str, Callable[[RunDir], object]] = {
    "a step": lambda folder: record_step(Tables(folder.path), 3),
    "an evaluation": lambda folder: record_evaluation(Tables(folder.path), 2, "valid_seen", won=1, n=2),
    "the status": lambda folder: folder.beat(step=2),
    "a checkpoint": checkpoint_of,
    "the tables at the end": lambda folder: Tables(folder.path).consolidate(),
    "the summary": lambda folder: folder.write_json("summary.json", summarize(folder.path).to_json()),
    "the log": lambda folder: folder.log("word " * 2000),
    "the provenance": lambda folder: provenance.write(folder.path, manifest_digest="", models={}),
    "the end": lambda folder: folder.done(step=2),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_fails_the_run_in_one_sentence_and_it_goes_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load([f"launch.runs_dir={disk}/runs", "tracking=none"])
    full = [True]

    def story(config: RunConfig, folder: RunDir, *, export: bool) -> None:
        tables = Tables(folder.path)
        tables.resume(0)
        for step in (1, 2):
            record_step(tables, step)
        if full[0]:
            fill(disk)
        WRITES[what](folder)

    monkeypatch.setattr(run, "run", story)
    outcome = execute(config, identity=Identity.of(config, "m"), export=False)
    assert (outcome.state, outcome.exit_code, outcome.traced) == ("failed", 1, False)
    assert outcome.reason.startswith("The disk is full: ")
    assert len(outcome.reason) < 400
    assert "Traceback" not in capsys.readouterr().err
    assert outcome.folder is not None
    status = RunDir(outcome.folder).status()
    assert status is not None
    assert (status.state, status.reason) == ("failed", outcome.reason)
    left = [p.name for p in outcome.folder.rglob(".*") if p.name not in (".lock", ".parts-done")]
    assert left == []

    free(disk)
    full[0] = False
    again = execute(config, identity=Identity.of(config, "m"), export=False)
    assert (again.state, again.folder) == ("done", outcome.folder)


def test_a_disk_that_is_full_at_the_claim_leaves_no_attempt(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load([f"launch.runs_dir={disk}/runs", "tracking=none"])
    identity = Identity.of(config, "m")
    monkeypatch.setattr(run, "run", lambda *_, **__: None)
    (disk / "runs" / identity.run).mkdir(parents=True)
    fill(disk)
    with pytest.raises(ConfigError, match=r"cannot be recorded in .*: No space left on device"):
        execute(config, identity=identity, export=False)
    assert [path.name for path in (disk / "runs" / identity.run).iterdir()] == [".lock"]
    free(disk)
    outcome = execute(config, identity=identity, export=False)
    assert outcome.folder is not None
    assert (outcome.state, outcome.folder.name) == ("done", "attempt_1")


def test_games_that_do_not_fit_leave_nothing_behind(disk: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "manifest.json").write_bytes(b"1" * 10_000_000)

    with pytest.raises(OSError) as raised:
        made_once(disk / "games", make)
    assert machine_fault(raised.value, disk).startswith("The disk is full: ")
    assert [path.name for path in disk.iterdir()] == ["games.lock"]


def test_a_reply_that_does_not_fit_into_the_judges_cache_is_a_full_disk(disk: Path) -> None:
    cache = ReplyFile(disk / "replies.sqlite")
    cache.put({"a": Known("STRONG", 3)})
    fill(disk)
    with pytest.raises(Exception, match="full") as raised:
        cache.put({str(i): Known("WEAK" * 5000, 3) for i in range(20)})
    assert machine_fault(raised.value, disk).startswith("The disk is full: ")
    cache.close()
    free(disk)
    cache = ReplyFile(disk / "replies.sqlite")
    assert cache.get("a") == Known("STRONG", 3)
    cache.put({"b": Known("WEAK", 3)})
    cache.close()


def test_an_export_beside_a_full_disk_costs_a_sentence(disk: Path) -> None:
    from sage.records.mlflow.follow import Exporter

    home = disk / "attempt_1"
    home.mkdir()
    fill(disk)
    exporter = Exporter(f"sqlite:///{disk}/mlflow.db", home / "mlflow_export.log")
    exporter.follow(home)
    (result,) = exporter.finish(timeout_s=60)
    assert result.error.startswith("Not in MLflow: ")
    assert len(result.error) < 600


def test_the_filler_leaves_no_byte(disk: Path) -> None:
    fill(disk)
    with pytest.raises(OSError), (disk / "more").open("wb", buffering=0) as file:
        file.write(b"1")
    assert os.statvfs(disk).f_bavail == 0

"""Which attempt a run works in, for every state and every policy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sage.config.load import load
from sage.config.schema import RunConfig
from sage.errors import ConfigError
from sage.launch.claim import claim, look_up, splits_played
from sage.records.identity import Identity
from sage.records.process import Process
from sage.records.rundir import RunDir

STATES = ("running", "half-done", "failed", "done")


def config_of(tmp_path: Path, policy: str = "resume") -> RunConfig:
    return load([f"launch.runs_dir={tmp_path}", f"launch.on_existing={policy}"])


def dead_process() -> Process:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return replace(Process.here(), pid=ended.pid)


def make(tmp_path: Path, state: str) -> tuple[Identity, RunDir]:
    """A first attempt in `state`."""
    config = config_of(tmp_path)
    identity = Identity.of(config, "manifest")
    folder = claim(config, identity).folder
    assert folder is not None
    if state == "done":
        folder.done()
    elif state == "failed":
        folder.fail("told to")
    elif state == "half-done":
        folder.write_json("owner.json", {"token": "x", "process": asdict(dead_process())})
    return identity, folder


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("policy", "actions"),
    [
        ("skip", ("skip", "skip", "skip", "skip")),
        ("resume", ("skip", "resume", "resume", "skip")),
        ("rerun", ("start", "start", "start", "start")),
    ],
)
def test_policy_by_state(tmp_path: Path, state: str, policy: str, actions: tuple[str, ...]) -> None:
    identity, first = make(tmp_path, state)
    found = claim(config_of(tmp_path, policy), identity)
    assert (found.state, found.action) == (state, actions[STATES.index(state)])
    assert found.folder is not None
    assert found.folder.attempt == (2 if found.action == "start" else first.attempt)
    status = found.folder.status()
    assert status is not None
    if found.action != "skip":
        assert found.folder.is_at_work()
        assert status.reason == ""


@pytest.mark.parametrize("state", STATES)
def test_error_refuses_what_exists(tmp_path: Path, state: str) -> None:
    identity, _ = make(tmp_path, state)
    with pytest.raises(ConfigError, match="exists already"):
        claim(config_of(tmp_path, "error"), identity)


@pytest.mark.parametrize("policy", ["skip", "resume", "rerun", "error"])
def test_an_absent_run_starts_under_every_policy(tmp_path: Path, policy: str) -> None:
    config = config_of(tmp_path, policy)
    found = claim(config, Identity.of(config, "manifest"))
    assert (found.state, found.action) == ("absent", "start")


def test_looking_changes_nothing(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert look_up(config, Identity.of(config, "manifest")).state == "absent"
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_gets_the_run(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    identity = Identity.of(config, "manifest")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claim(config, identity).action, range(8)))
    assert sorted(found) == ["skip"] * 7 + ["start"]


def test_other_games_are_another_run(tmp_path: Path) -> None:
    make(tmp_path, "done")
    config = config_of(tmp_path)
    assert look_up(config, Identity.of(config, "other games")).state == "absent"


def test_splits_played() -> None:
    assert splits_played(load([])) == ["train", "valid_seen", "valid_unseen"]
    assert splits_played(load(["task=evaluate", "evaluation.splits=[valid_seen]"])) == ["valid_seen"]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "run.json is cut": lambda path: (path / "run.json").write_text("{", encoding="utf-8"),
    "run.json is empty": lambda path: (path / "run.json").write_text("", encoding="utf-8"),
    "no run.json": lambda path: (path / "run.json").unlink(),
}


@pytest.mark.parametrize("told", DAMAGES)
@pytest.mark.parametrize(("policy", "action"), [("resume", "start"), ("rerun", "start"), ("skip", "skip")])
def test_a_damaged_attempt_is_named_and_a_new_one_begins_beside_it(
    tmp_path: Path, told: str, policy: str, action: str
) -> None:
    identity, first = make(tmp_path, "done")
    DAMAGES[told](first.path)
    found = claim(config_of(tmp_path, policy), identity)
    assert (found.state, found.action) == ("damaged", action)
    (note,) = found.notes
    assert told in note
    if action == "start":
        assert found.folder is not None
        assert found.folder.attempt == 2
        assert told in (found.folder.path / "log.txt").read_text(encoding="utf-8")


def test_an_attempt_of_another_run_is_named_and_left_out(tmp_path: Path) -> None:
    identity, first = make(tmp_path, "failed")
    config = load([f"launch.runs_dir={tmp_path}", "seed=7"])
    stranger = Identity.of(config, "manifest")
    shutil.copytree(first.path, tmp_path / stranger.run / "attempt_1")
    found = look_up(config, stranger)
    assert (found.state, found.action) == ("damaged", "start")
    assert f"belongs to run {identity.digest[:24]}" in found.notes[0]


def test_a_status_that_says_nothing_counts_as_half_done_with_a_note(tmp_path: Path) -> None:
    identity, first = make(tmp_path, "half-done")
    (first.path / "status.json").write_text('{"state": "don', encoding="utf-8")
    found = claim(config_of(tmp_path), identity)
    assert (found.state, found.action) == ("half-done", "resume")
    assert "status.json is cut" in found.notes[0]
    status = first.status()
    assert status is not None
    assert status.state == "running"


@pytest.mark.parametrize("link", [False, True], ids=["none there", "a link to nothing"])
def test_an_attempt_without_a_status_counts_as_half_done_with_a_note(tmp_path: Path, link: bool) -> None:
    identity, folder = make(tmp_path, "done")
    (folder.path / "status.json").unlink()
    if link:
        (folder.path / "status.json").symlink_to(tmp_path / "nowhere")
    found = look_up(config_of(tmp_path), identity)
    assert (found.state, found.action) == ("half-done", "resume")
    assert found.notes == (f"{folder.path} has no status.json: it counts as half done.",)


def test_a_copy_beside_the_attempts_is_named_and_harmless(tmp_path: Path) -> None:
    identity, first = make(tmp_path, "failed")
    shutil.copytree(first.path, first.path.with_name("attempt_1.bak"))
    found = claim(config_of(tmp_path, "rerun"), identity)
    assert found.folder is not None
    assert found.folder.attempt == 2
    assert "attempt_1.bak is no attempt" in found.notes[0]


def test_a_file_in_the_place_of_the_run_is_one_sentence(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    identity = Identity.of(config, "manifest")
    (tmp_path / identity.run).write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="is in the way"):
        claim(config, identity)


def test_a_folder_that_cannot_be_written_is_one_sentence() -> None:
    config = load(["launch.runs_dir=/proc/runs"])
    with pytest.raises(ConfigError, match=r"cannot be recorded in /proc/runs/[0-9a-f]{12}: "):
        claim(config, Identity.of(config, "manifest"))


def test_a_damaged_checkpoint_is_set_aside_by_who_goes_on(tmp_path: Path) -> None:
    identity, first = make(tmp_path, "failed")
    (first.checkpoints / "step-000004").mkdir(parents=True)
    found = claim(config_of(tmp_path), identity)
    assert (
        "step-000004 is damaged (trainer.pt is missing): the run goes on from the beginning" in found.notes[0]
    )


def test_a_claim_that_is_killed_before_the_attempt_is_whole_leaves_no_attempt(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    identity = Identity.of(config, "manifest")
    code = (
        "import os, sys; from sage.records import rundir\n"
        "rundir.RunDir.write_json = lambda *_: os._exit(9)\n"
        "from sage.launch.claim import claim; from sage.config.load import load\n"
        "from sage.records.identity import Identity\n"
        "config = load([f'launch.runs_dir={sys.argv[1]}']); claim(config, Identity.of(config, 'manifest'))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    (left,) = [path for path in (tmp_path / identity.run).iterdir() if path.is_dir()]
    assert not left.name.startswith("attempt")
    assert look_up(config, identity).state == "absent"
    assert look_up(config, identity).notes == ()
    found = claim(config, identity)
    assert found.folder is not None
    assert found.folder.path.name == "attempt_1"
    assert not left.exists()

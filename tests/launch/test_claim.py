"""Which attempt a run works in, for every state and every policy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sage.config import RunConfig
from sage.launch.claim import claim, look_up, splits_played
from sage.records.identity import Identity
from sage.records.rundir import RunDir
from sage.settings import ConfigError, load

STATES = ("running", "half-done", "failed", "done")


def config_of(tmp_path: Path, policy: str = "resume") -> RunConfig:
    return load([f"launch.runs_dir={tmp_path}", f"launch.on_existing={policy}"])


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
        status = folder.status()
        assert status is not None
        folder.write_json("status.json", asdict(replace(status, heartbeat=0.0)))
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
        assert status.is_alive()
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

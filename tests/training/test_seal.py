"""Damaged checkpoints are told from whole ones, and the one before takes their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sage.training import checkpoint
from sage.training.seal import SEAL, damage, set_aside
from tests.tiny_models import tiny_lm


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Of the steps 1 to 3; the two newest are kept."""
    lm = tiny_lm(0)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "checkpoints", step, lm, {"numbers": list(range(1000))})
    return tmp_path / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def weights(folder: Path) -> Path:
    return next((folder / "student").glob("*.safetensors"))


def unlisted(folder: Path, cut: Path) -> None:
    (folder / SEAL).unlink()
    os.truncate(cut, 1000)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit of the weights": (lambda folder: flip(weights(folder)), "is not what was written"),
    "a bit of the optimizer": (lambda folder: flip(folder / "trainer.pt"), "trainer.pt is not what was"),
    "the weights cut": (lambda folder: os.truncate(weights(folder), 100), "has 100 of"),
    "the optimizer empty": (lambda folder: os.truncate(folder / "trainer.pt", 0), "has 0 of"),
    "no weights": (lambda folder: weights(folder).unlink(), "is missing"),
    "no list, and the weights cut": (
        lambda folder: unlisted(folder, weights(folder)),
        "is cut",
    ),
    "no list, and the optimizer cut": (
        lambda folder: unlisted(folder, folder / "trainer.pt"),
        "trainer.pt is cut",
    ),
    "a list that is cut": (lambda folder: os.truncate(folder / SEAL, 20), "files.json is cut"),
}


def test_the_two_newest_are_kept_and_whole(checkpoints: Path) -> None:
    assert names(checkpoints) == ["step-000002", "step-000003"]
    assert set_aside(checkpoints) == []
    assert damage(checkpoints / "step-000003") == ""


def test_a_checkpoint_of_an_earlier_version_has_no_list_and_is_taken(checkpoints: Path) -> None:
    (checkpoints / "step-000003" / SEAL).unlink()
    assert set_aside(checkpoints) == []


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_one_gives_way_to_the_one_before(checkpoints: Path, what: str) -> None:
    change, told = DAMAGES[what]
    change(checkpoints / "step-000003")
    (note,) = set_aside(checkpoints)
    assert told in note
    assert note.endswith("the run goes on from step 2.")
    assert checkpoint.latest(checkpoints) == checkpoints / "step-000002"
    assert checkpoint.load(checkpoints / "step-000002", tiny_lm(0))["step"] == 2
    # It is kept for whoever wants to look, until a newer one is there.
    assert "damaged-step-000003" in names(checkpoints)
    checkpoint.save(checkpoints, 3, tiny_lm(0), {})
    assert names(checkpoints) == ["step-000002", "step-000003"]


def test_where_all_are_damaged_the_run_begins_anew(checkpoints: Path) -> None:
    for step in (2, 3):
        os.truncate(checkpoints / f"step-00000{step}" / "trainer.pt", 5)
    notes = set_aside(checkpoints)
    assert [note.rpartition("from ")[2] for note in notes] == ["step 2.", "the beginning."]
    assert checkpoint.latest(checkpoints) is None


def test_what_only_looks_like_a_checkpoint_is_none(checkpoints: Path) -> None:
    (checkpoints / "step-9").write_text("", encoding="utf-8")
    (checkpoints / "step-000009.bak").mkdir()
    assert checkpoint.latest(checkpoints) == checkpoints / "step-000003"

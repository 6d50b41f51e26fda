"""Which tasks there are: as the package says, without asking a JVM."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import pytest

from sage.config.load import load
from sage.config.schema import RunConfig
from sage.envs.manifest import MissingData
from sage.envs.scienceworld import jvm
from sage.envs.scienceworld.tasks import VARIATIONS, chosen, list_tasks, parse_id, variations
from sage.errors import ConfigError

CAPS = {"train": 10, "dev": 5, "test": 5}


def config(*overrides: str) -> RunConfig:
    return load(["env=scienceworld", *overrides])


def test_tasks_variations_and_splits_are_the_packages(simulator: jvm.Simulator) -> None:
    session = simulator.open()
    assert sorted(VARIATIONS) == sorted(session.interface.getTaskNames())
    for task in VARIATIONS:
        simulator.load(session, task, 0, "easy")
        assert session.interface.getTaskMaxVariations(task) == VARIATIONS[task]
        for split, ask in (("train", "Train"), ("dev", "Dev"), ("test", "Test")):
            listed = getattr(session.interface, f"getVariations{ask}")()
            assert variations(task, split) == [int(v) for v in listed]


def test_evaluation_is_149_tasks_because_one_task_has_four_test_variations() -> None:
    tasks = list_tasks("test", CAPS, "easy", "1.2.3")
    assert len(tasks) == 149
    few = {task: variations(task, "test") for task in VARIATIONS if len(variations(task, "test")) < 5}
    assert few == {"identify-life-stages-2": [6, 7, 8, 9]}
    assert [parse_id(t.id) for t in tasks[:5]] == [("boil", v) for v in (21, 22, 23, 24, 25)]


def test_no_variation_is_in_two_splits_and_a_smaller_train_set_is_part_of_a_larger_one() -> None:
    for task in VARIATIONS:
        train, dev, test = (set(variations(task, split)) for split in ("train", "dev", "test"))
        assert train.isdisjoint(dev | test)
        assert dev.isdisjoint(test)
        assert set(chosen(task, "train", 10)) <= set(chosen(task, "train", 30)) <= train


def test_ids_are_stable_and_the_hash_covers_simplifications_and_version() -> None:
    easy, hard, newer = (
        list_tasks("test", CAPS, *how)[0] for how in (("easy", "1.2.3"), ("", "1.2.3"), ("easy", "1.3"))
    )
    assert easy.id == hard.id == newer.id == "boil/21"
    assert len({easy.sha256, hard.sha256, newer.sha256}) == 3
    expected = hashlib.sha256(b'["boil", 21, "easy", "1.2.3"]').hexdigest()
    assert easy.sha256 == expected


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(MissingData, match=r"'valid_seen'.*train, dev, test"):
        list_tasks("valid_seen", CAPS, "easy", version("scienceworld"))


def test_the_config_makes_the_papers_evaluation_set() -> None:
    env = config().env
    env.prepare()
    assert len(env.tasks("test")) == 149
    assert config().evaluation.splits == ["test"]
    assert env.gives_distances()
    assert not config("env.simplifications=teleportAction").env.gives_distances()


def test_simplifications_change_the_manifest() -> None:
    digests = {config(f"env.simplifications='{s}'").env.manifest_digest(["test"]) for s in ("easy", "")}
    assert len(digests) == 2


def test_some_kinds_of_tasks_alone_in_whatever_order_they_are_named() -> None:
    few = config("env.task_types=[find-plant,boil]")
    assert {task.task_type for task in few.env.tasks("train")} == {"boil", "find-plant"}
    assert [task.id for task in few.env.tasks("test")] == [
        *(f"boil/{n}" for n in range(21, 26)),
        *(f"find-plant/{n}" for n in range(225, 230)),
    ]
    again = config("env.task_types=[boil,find-plant,boil]")
    assert few.digest_fields() == again.digest_fields() != config().digest_fields()
    assert "task_types" not in config().digest_fields()["env"]  # runs from before it are what they were


def test_an_unknown_kind_of_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"find-plants: no task .* there are boil, .*find-plant,"):
        config("env.task_types=[find-plants]")
    with pytest.raises(ConfigError, match="null takes all 30"):
        config("env.task_types=[]")

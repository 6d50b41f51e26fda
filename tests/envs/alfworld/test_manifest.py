"""Manifests: hashes of the bytes on disk, one digest over them, one clear sentence where data is missing."""

from __future__ import annotations

import json
import multiprocessing
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from sage.envs.alfworld import store
from sage.envs.alfworld.manifest import load_tasks, resolve_source
from sage.envs.made_once import made_once
from sage.envs.manifest import Manifest, MissingData, cache_root, hash_files, manifest_digest, spread
from sage.episode import Task

needs_wheel = pytest.mark.skipif(find_spec("alfworld") is None, reason="its wheel holds the floor plans")

COUNTS = {"train": 12, "valid_seen": 3, "valid_unseen": 4}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder in the official layout, filled with stand-ins."""
    root = tmp_path / "official"
    for name, content in {
        "pick_and_place_simple-Mug-None-Shelf-1/trial_1": {"solvable": True},
        "look_at_obj_in_light-Book-None-DeskLamp-301/trial_2": {"solvable": True},
        "pick_and_place_simple-Mug-None-Shelf-1/trial_3": {"solvable": False},
        "pick_and_place_with_movable_recep-Fork-Mug-Shelf-1/trial_4": {"solvable": True},
        "pick_and_place_simple-AppleSliced-None-Shelf-1/trial_5": {"solvable": True},
    }.items():
        folder = root / "json_2.1.1" / "valid_unseen" / name
        folder.mkdir(parents=True)
        (folder / "game.tw-pddl").write_text(json.dumps(content))
    (root / "json_2.1.1" / "valid_unseen" / "pick_and_place_simple-Mug-None-Shelf-1" / "trial_6").mkdir()
    return root


@needs_wheel
def test_generated_tasks_are_made_once_and_hashed(own_cache: Path) -> None:
    tasks = load_tasks("auto", "train", seed=5, counts=COUNTS)
    assert len(tasks) == 12
    assert len({task.id for task in tasks}) == 12
    assert all(task.source == "generated" and task.sha256 for task in tasks)
    made = Path(tasks[0].path).stat().st_mtime_ns
    assert load_tasks("generated", "train", seed=5, counts=COUNTS) == tasks
    assert Path(tasks[0].path).stat().st_mtime_ns == made
    folders = [path.name for path in (own_cache / "games").iterdir() if path.is_dir()]
    assert len(folders) == 1
    assert "-s5-12-3-4" in folders[0]


@needs_wheel
def test_a_changed_byte_changes_the_digest_and_is_noticed() -> None:
    root = store.ensure_games(5, COUNTS)
    before = Manifest.read(root / "manifest.json", root)
    path = Path(before.tasks[0].path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(MissingData, match="was changed"):
        load_tasks("generated", before.tasks[0].split, seed=5, counts=COUNTS)
    sha = hash_files([path], root / "memory.json")[path]
    changed = Task(**{**{f: getattr(before.tasks[0], f) for f in Task.__slots__}, "sha256": sha})
    assert manifest_digest([changed, *before.tasks[1:]]) != before.digest
    path.unlink()
    with pytest.raises(MissingData, match="is gone"):
        load_tasks("generated", before.tasks[0].split, seed=5, counts=COUNTS)


@pytest.mark.slow
@needs_wheel
def test_the_default_set_is_the_documented_one() -> None:
    # Its digest is in docs/evidence/generated_games.md; a change needs a new GENERATOR_VERSION and tables.
    started = time.process_time()
    root = store.ensure_games()
    assert time.process_time() - started < 60
    digest = Manifest.read(root / "manifest.json", root).digest
    assert digest == "cc8670575c99dee51ddfe7694fce1b2e5975aa9c2537bb5ef390cb26e750f6ee"
    assert len(load_tasks("generated", "valid_unseen")) == 134


def _make(_: int) -> str:
    return str(store.ensure_games(6, COUNTS))


@needs_wheel
def test_two_processes_make_one_set(own_cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_make, range(2))
    assert first == second
    assert [p.name for p in (own_cache / "games").iterdir() if p.is_dir()] == [Path(first).name]
    assert len(list(Path(first).rglob("game.tw-pddl"))) == sum(COUNTS.values())


def test_an_interrupted_set_leaves_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_games", fail)
    with pytest.raises(KeyboardInterrupt):
        store.ensure_games(5, COUNTS)
    assert [p for p in (own_cache / "games").iterdir() if p.is_dir()] == []


def test_official_tasks_skip_what_is_no_text_game(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = load_tasks("official", "valid_unseen", root=official)
    assert [task.id.rsplit("/", 1)[1] for task in tasks] == ["trial_2", "trial_1"]
    assert [task.task_type for task in tasks] == ["look_at_obj_in_light", "pick_and_place_simple"]
    monkeypatch.setenv("ALFWORLD_DATA", str(official))
    assert load_tasks("auto", "valid_unseen") == tasks
    # The second answer came from the remembered hashes; a changed file is hashed again.
    path = Path(tasks[0].path)
    path.write_text(path.read_text() + "  ")
    assert load_tasks("auto", "valid_unseen")[0].sha256 != tasks[0].sha256


def test_missing_data_is_said_in_one_sentence(official: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="ALFWORLD_DATA is not set; set it to the folder that holds json_2"):
        load_tasks("official", "train")
    with pytest.raises(MissingData, match="is no folder; it must be the folder that holds json_2"):
        load_tasks("official", "train", root=tmp_path / "nowhere")
    with pytest.raises(MissingData, match="name its parent"):
        load_tasks("official", "train", root=official / "json_2.1.1")
    with pytest.raises(MissingData, match="its splits are: valid_unseen"):
        load_tasks("official", "train", root=official)
    (official / "json_2.1.1" / "train").mkdir()
    with pytest.raises(MissingData, match="holds no solvable game"):
        load_tasks("official", "train", root=official)
    with pytest.raises(ValueError, match="official, generated, auto"):
        load_tasks("offical", "train")
    with pytest.raises(MissingData, match="its splits are: train"):
        load_tasks("generated", "test", counts=COUNTS)


def test_a_wrong_alfworld_data_is_never_a_silent_change_of_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", "/nowhere")
    assert resolve_source("auto") == "official"
    with pytest.raises(MissingData, match="/nowhere"):
        load_tasks("auto", "train")


def test_what_the_alfworld_package_sets_is_not_what_the_user_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, str(tmp_path / ".cache" / "alfworld")):  # before and after `import alfworld`
        if value:
            monkeypatch.setenv("ALFWORLD_DATA", value)
        assert resolve_source("auto") == "generated"
    (tmp_path / ".cache" / "alfworld" / "json_2.1.1").mkdir(parents=True)
    assert resolve_source("auto") == "official"
    monkeypatch.delenv("ALFWORLD_DATA")
    assert resolve_source("auto") == "official"


def some_tasks(count: int) -> list[Task]:
    kinds = ("a", "b", "c")
    return [
        Task(f"{i:03d}", "toy", "train", kinds[min(i // 10, 2)], "made", f"/x/{i}", str(i))
        for i in range(count)
    ]


def test_the_digest_ignores_order_and_place_but_nothing_else(tmp_path: Path) -> None:
    tasks = some_tasks(5)
    digest = manifest_digest(tasks)
    assert manifest_digest(tasks[::-1]) == digest
    for field in ("id", "env", "split", "task_type", "source", "sha256", "path"):
        values = {f: getattr(tasks[0], f) for f in Task.__slots__} | {field: "other"}
        assert (manifest_digest([Task(**values), *tasks[1:]]) == digest) == (field == "path")
    manifest = Manifest.of(tasks)
    manifest.write(tmp_path / "m.json", Path("/x"))
    moved = Manifest.read(tmp_path / "m.json", Path("/y"))
    assert moved.digest == digest
    assert moved.tasks[3].path == str(Path("/y/3"))
    with pytest.raises(ValueError, match="more than once"):
        Manifest.of([*tasks, tasks[0]])
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(MissingData, match="format"):
        Manifest.read(tmp_path / "m.json", tmp_path)


def test_spread_takes_every_type_in_turn_and_the_same_ones_each_time() -> None:
    tasks = some_tasks(30)
    chosen = spread(tasks, 7)
    assert [task.task_type for task in chosen] == ["a"] * 3 + ["b"] * 2 + ["c"] * 2
    assert chosen == spread(tasks, 7)
    assert set(spread(tasks, 4)) < set(chosen)
    assert spread(tasks, None) == tasks == spread(tasks, 99)
    with pytest.raises(ValueError, match="at least 1"):
        spread(tasks, 0)


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("SAGE_CACHE")
    assert cache_root().name == "sage-opd"


@pytest.mark.parametrize("where", ["/proc/nobody/cache", "file/cache"])
def test_a_cache_that_cannot_be_written_is_one_sentence(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MissingData, match=r"cannot be kept in .*cache .*: set SAGE_CACHE to a folder"):
        made_once(tmp_path / where / "games", lambda folder: None)

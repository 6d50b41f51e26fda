"""ALFWorld tasks by source and split: the official files, or games of our generator.

Invariant: what `load_tasks` returns was hashed from the bytes on disk, and `Task.source` says where they came
from; scores on generated games are never ALFWorld scores. `auto` means official where ALFWORLD_DATA is set,
else generated; a set but wrong ALFWORLD_DATA is an error, never a silent change of source.

Beware: importing the alfworld package sets ALFWORLD_DATA to `~/.cache/alfworld`, where `alfworld-download`
puts the games unless told otherwise. So that folder counts as named exactly if it holds games, whether or not
the variable is set: the answer must not depend on which engine was imported before.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sage.envs.alfworld.store import DEFAULT_COUNTS, LAYOUT, ensure_games
from sage.envs.manifest import Manifest, MissingData, cache_root, hash_files
from sage.episode import Task

SOURCES = ("official", "generated", "auto")

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six, in ALFWorld's own order (1 to 6)."""

UNSUPPORTED = ("movable", "Sliced")
"""Folders with one of these in their path are no text games; alfworld skips them too."""


def resolve_source(source: str, root: Path | None = None) -> str:
    """`official` or `generated`. Raises ValueError for any other source."""
    if source not in SOURCES:
        raise ValueError(f"env.games={source!r} is unknown; it is one of {', '.join(SOURCES)}.")
    if source == "auto":
        return "generated" if root is None and named_root() is None else "official"
    return source


def named_root() -> Path | None:
    """The folder of official games that this machine names; None where it names none."""
    default = Path(os.path.expanduser("~/.cache/alfworld"))  # as it is where there is no home
    value = os.environ.get("ALFWORLD_DATA")
    if value and Path(value).expanduser() != default:
        return Path(value).expanduser()
    return default if (default / LAYOUT).is_dir() else None


def load_tasks(
    source: str = "auto",
    split: str = "valid_unseen",
    *,
    root: str | Path | None = None,
    seed: int = 0,
    counts: dict[str, int] | None = None,
) -> list[Task]:
    """Tasks of one split, sorted by id, each with the sha256 of its file.

    Args:
        source: `official`, `generated` or `auto`.
        split: `train`, `valid_seen`, `valid_unseen` (official ones may have more, such as `valid_train`).
        root: folder that holds `json_2.1.1`, instead of ALFWORLD_DATA; official games only.
        seed, counts: of the generated set.

    Raises:
        MissingData: the files are not there, or generated ones were changed since they were made.
        ValueError: unknown source.
        WheelMissing: games must be generated and the `alfworld` wheel is not installed.
    """
    path = None if root is None else Path(root).expanduser()
    if resolve_source(source, path) == "official":
        return _official(split, path)
    return _generated(split, seed, counts or DEFAULT_COUNTS)


def official_root(root: Path | None = None) -> Path:
    """The folder that holds `json_2.1.1`: `root`, else ALFWORLD_DATA.

    Raises:
        MissingData: none is named, or it does not hold `json_2.1.1`.
    """
    named = "the given path"
    if root is None:
        named = "ALFWORLD_DATA"
        root = named_root()
        if root is None:
            raise MissingData(
                "Official ALFWorld games were asked for but ALFWORLD_DATA is not set; set it to the folder "
                f"that holds {LAYOUT} (`alfworld-download` makes it), or use env.games=generated."
            )
    if not root.is_dir():
        raise MissingData(
            f"{named} names {root}, which is no folder; it must be the folder that holds {LAYOUT}."
        )
    if not (root / LAYOUT).is_dir():
        hint = f"; name its parent {root.parent} instead" if root.name == LAYOUT else ""
        raise MissingData(f"{named} names {root}, which holds no {LAYOUT}{hint or ' folder'}.")
    return root


def _official(split: str, root: Path | None) -> list[Task]:
    root = official_root(root)
    folder = root / LAYOUT / split
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in (root / LAYOUT).iterdir() if p.is_dir())) or "none"
        raise MissingData(f"There is no split {split!r} in {root / LAYOUT}; its splits are: {there}.")
    files = [
        path
        for path in sorted(folder.glob("*/*/game.tw-pddl"))
        if not any(word in path.relative_to(folder).as_posix() for word in UNSUPPORTED)
    ]
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    hashes = hash_files(files, cache_root() / "hashes" / f"alfworld-{split}-{place}.json", _is_solvable)
    tasks = [
        Task(
            id=path.parent.relative_to(root / LAYOUT).as_posix(),
            env="alfworld",
            split=split,
            task_type=_task_type(path),
            source="official",
            path=str(path),
            sha256=sha,
        )
        for path, sha in hashes.items()
        if sha is not None
    ]
    if not tasks:
        raise MissingData(
            f"{folder} holds no solvable game; games are expected at <task>/<trial>/game.tw-pddl below it."
        )
    return tasks


def _is_solvable(data: bytes) -> bool:
    return b'"solvable": false' not in data


def _task_type(path: Path) -> str:
    name = path.parent.parent.name.split("-", 1)[0]
    if name not in TASK_TYPES:
        raise MissingData(
            f"The folder {path.parent.parent} does not begin with one of ALFWorld's six task types; "
            "a game's folder is named <task>-<Object>-<MovableReceptacle>-<Receptacle>-<scene>."
        )
    return name


def _generated(split: str, seed: int, counts: dict[str, int]) -> list[Task]:
    if not counts.get(split):
        there = ", ".join(name for name, count in counts.items() if count)
        raise MissingData(f"The generated set has no split {split!r}; its splits are: {there}.")
    root = ensure_games(seed, counts)
    tasks = [task for task in Manifest.read(root / "manifest.json", root).tasks if task.split == split]
    files = [Path(task.path) for task in tasks]
    try:
        hashes = hash_files(files, cache_root() / "hashes" / f"{root.name}-{split}.json")
    except FileNotFoundError as error:
        raise MissingData(
            f"The generated game {error.filename} is gone; delete {root} and it is made again."
        ) from None
    for task, file in zip(tasks, files, strict=True):
        if hashes[file] != task.sha256:
            raise MissingData(
                f"The generated game {file} was changed since it was made; delete {root} and it is made anew."
            )
    return tasks

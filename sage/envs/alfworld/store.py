"""The generated games on disk: made once, in a cache folder, in the official layout.

How to run it (makes the default set if it is absent, and prints its folder and digest):

    python -m sage.envs.alfworld.store

Invariant: a folder under the cache is either complete or absent. A set is written beside its final place and
renamed; a lock file keeps two processes from writing the same one. The folder's name says everything that its
content depends on: version of the wheel and of the generator, seed, counts.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path

from sage.envs.alfworld.simulator.generate import GENERATOR_VERSION, SPLITS, sample_games
from sage.envs.made_once import made_once
from sage.envs.manifest import Manifest, cache_root
from sage.episode import Task

DEFAULT_COUNTS = {"train": 1000, "valid_seen": 140, "valid_unseen": 134}
"""Sizes of the default set; the validation splits are as large as the official ones."""

LAYOUT = "json_2.1.1"
"""Folder that the alfworld package looks for."""


def set_folder(seed: int, counts: dict[str, int]) -> Path:
    """Where the set of this seed and these counts is or would be."""
    try:
        wheel = importlib.metadata.version("alfworld")
    except importlib.metadata.PackageNotFoundError:
        wheel = "absent"  # making it will say what is missing; an existing folder is never of this name
    sizes = "-".join(str(counts.get(split, 0)) for split in SPLITS)
    return cache_root() / "games" / f"alfworld-{wheel}-g{GENERATOR_VERSION}-s{seed}-{sizes}"


def write_games(root: Path, seed: int, counts: dict[str, int]) -> Manifest:
    """Write the games below `root` / json_2.1.1 and the manifest beside them; `root` must be empty.

    Raises:
        WheelMissing: the `alfworld` wheel is not installed.
    """
    tasks: list[Task] = []
    for split in SPLITS:
        for game in sample_games(split, seed, counts.get(split, 0)):
            folder = root / LAYOUT / split / game.folder / game.trial
            folder.mkdir(parents=True)
            path = folder / "game.tw-pddl"
            data = json.dumps(game.as_json()).encode()
            path.write_bytes(data)
            tasks.append(
                Task(
                    id=f"{split}/{game.key}",
                    env="alfworld",
                    split=split,
                    source="generated",
                    task_type=game.household.goal.task_type,
                    path=str(path),
                    sha256=hashlib.sha256(data).hexdigest(),
                )
            )
    manifest = Manifest.of(sorted(tasks, key=lambda task: task.id))
    manifest.write(root / "manifest.json", root)
    return manifest


def ensure_games(seed: int = 0, counts: dict[str, int] | None = None) -> Path:
    """Folder of the generated set (it holds `json_2.1.1` and `manifest.json`), made now if it is absent.

    Raises:
        WheelMissing: the set is absent and the `alfworld` wheel is not installed.
    """
    counts = counts or DEFAULT_COUNTS
    return made_once(set_folder(seed, counts), lambda folder: write_games(folder, seed, counts))


if __name__ == "__main__":
    where = ensure_games()
    print(f"{where}\n{Manifest.read(where / 'manifest.json', where).digest}")

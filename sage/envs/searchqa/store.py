"""Sets of questions on disk: made once, in a cache folder, hashed.

How to run it (makes the default generated set if it is absent, and prints its folder and digest):

    python -m sage.envs.searchqa.store

Invariant: a folder under the cache is either complete or absent; it is written beside its final place and
renamed, under a lock. It holds `<split>.jsonl` (questions), `manifest.json` and, where they are generated,
`corpus.jsonl`. A task's path is `<folder>/<split>.jsonl#<id>`, its sha256 that of the question's line.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sage.envs.made_once import made_once
from sage.envs.manifest import Manifest, MissingData, cache_root, hash_files
from sage.envs.searchqa.encyclopedia import GENERATOR_VERSION, SPLITS, World
from sage.envs.searchqa.question import Question, read_questions
from sage.envs.searchqa.retrieval.passage import write_corpus
from sage.episode import Task

HOPS = (1, 2, 3)
TRAIN_PASSAGES = 3
"""How many times as many passages are about train entities as about those of an evaluation split."""


def ensure(name: str, write: Callable[[Path], Manifest]) -> Path:
    """The folder `name` in the cache, made now by `write` (into an empty folder) if it is absent."""
    return made_once(
        cache_root() / "questions" / name,
        lambda folder: write(folder).write(folder / "manifest.json", folder),
    )


def ensure_generated(seed: int, train: int, evaluation: int, passages: int) -> Path:
    """Folder of the generated set; its name says everything that its content depends on."""
    name = f"searchqa-g{GENERATOR_VERSION}-s{seed}-{train}-{evaluation}-{passages}"
    return ensure(name, lambda folder: write_generated(folder, seed, train, evaluation, passages))


def write_generated(folder: Path, seed: int, train: int, evaluation: int, passages: int) -> Manifest:
    """Write one encyclopedia over all splits, and the questions of each."""
    worlds = {
        split: World(split, seed, passages * (TRAIN_PASSAGES if split == "train" else 1)) for split in SPLITS
    }
    write_corpus(folder / "corpus.jsonl", (p for world in worlds.values() for p in world.passages()))
    sets: dict[str, list[Question]] = {"train": []}
    for split, world in worlds.items():
        for hops in HOPS:
            made = world.questions(hops, seed)
            if split == "train":
                sets["train"] += itertools.islice(made, train // 3 + (hops <= train % 3))
            else:
                sets[f"{split}_{hops}hop"] = list(itertools.islice(made, evaluation))
    return write_sets(folder, sets, "generated", lambda q: f"{len(q.gold)}hop")


def write_sets(
    folder: Path,
    sets: Mapping[str, Iterable[Question]],
    source: str,
    task_type: Callable[[Question], str],
) -> Manifest:
    """Write each set's questions to `<split>.jsonl`; the manifest of them all, in the order given."""
    tasks: list[Task] = []
    for split, questions in sets.items():
        file = folder / f"{split}.jsonl"
        with file.open("w", encoding="utf-8") as out:
            for question in questions:
                out.write(question.line() + "\n")
                tasks.append(Task(
                    id=question.id, env="searchqa", split=split, source=source, task_type=task_type(question),
                    path=f"{file}#{question.id}", sha256=question.sha256,
                ))
    return Manifest.of(tasks)


def load_tasks(folder: Path, split: str) -> list[Task]:
    """The split's tasks, in their order, checked against the questions on disk.

    Raises MissingData where there is no such split, or its file is gone or was changed since it was made.
    """
    manifest = Manifest.read(folder / "manifest.json", folder)
    tasks = [task for task in manifest.tasks if task.split == split]
    if not tasks:
        there = ", ".join(dict.fromkeys(task.split for task in manifest.tasks))
        raise MissingData(
            f"The {manifest.source} questions have no split {split!r}; their splits are: {there}."
        )
    file = folder / f"{split}.jsonl"
    try:
        hashes = {name: question.sha256 for name, question in read_questions(file).items()}
    except (OSError, ValueError):
        hashes = {}
    if hashes != {task.id: task.sha256 for task in tasks}:
        raise MissingData(f"The questions in {file} were changed since they were made; delete {folder}.")
    return tasks


def file_digest(path: Path) -> str:
    """sha256 of a file, remembered by size and time."""
    digest = hash_files([path], cache_root() / "hashes" / "searchqa-corpora.json")[path]
    assert digest is not None
    return digest


if __name__ == "__main__":
    from sage.config.load import load

    where = ensure_generated(**load(["env=searchqa"]).env.model_dump()["generated"])
    print(f"{where}\n{Manifest.read(where / 'manifest.json', where).digest}")

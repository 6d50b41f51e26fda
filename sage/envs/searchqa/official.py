"""The paper's seven sets, read by the `datasets` package from the hub or from a local copy.

Format of the FlashRAG data sets, which Search-R1 uses: one configuration per set; rows with `id`, `question`,
`golden_answers` and `metadata`. As in Search-R1 an evaluation set is its `test` split, else `dev`, else
`train`, and training questions come from the `train` splits of NQ and HotpotQA together. What is drawn is
written to the cache, so a network is needed once. Bamboogle has 125 questions, fewer than the cap of 500.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage.envs.manifest import Manifest, MissingData
from sage.envs.searchqa.question import Question
from sage.envs.searchqa.sources import OfficialSettings
from sage.envs.searchqa.store import ensure, write_sets
from sage.errors import reason_of

SETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
EVALUATION_SPLITS = ("test", "dev", "train")
"""The first that a set has is what it is evaluated on."""


def ensure_official(settings: OfficialSettings, data: Path | None) -> Path:
    """Folder of the drawn questions, made now if it is absent.

    Raises MissingData where the sets cannot be read.
    """
    key = settings.model_dump_json()
    if data is not None:
        if not data.is_dir():
            raise MissingData(f"env.data names {data}, which is no folder; it holds <set>/<split>.jsonl.")
        stamps = [f"{f.relative_to(data)} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in _files(data)]
        key += "\n".join(stamps)
    name = f"searchqa-official-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return ensure(name, lambda folder: write_official(folder, settings, data))


def write_official(folder: Path, settings: OfficialSettings, data: Path | None) -> Manifest:
    """Draw the training sample and the evaluation sets. Raises MissingData."""
    rng = random.Random(f"sage searchqa official {settings.seed}")
    pool: list[tuple[str, int]] = []
    loaded = {name: _load(name, settings, data) for name in dict.fromkeys((*SETS, *settings.train_sets))}
    for name in settings.train_sets:
        if "train" not in loaded[name]:
            raise MissingData(
                f"The set {name} has no train split; env.official.train_sets names those that do."
            )
        pool += [(name, index) for index in range(len(loaded[name]["train"]))]
    drawn = sorted(rng.sample(range(len(pool)), min(settings.train, len(pool))))
    chosen: dict[str, list[Question]] = {
        "train": [_question(*pool[i], "train", loaded[pool[i][0]]["train"]) for i in drawn]
    }
    for name in SETS:
        split = next(split for split in EVALUATION_SPLITS if split in loaded[name])
        rows = loaded[name][split]
        keep = sorted(rng.sample(range(len(rows)), min(settings.cap, len(rows))))
        chosen[name] = [_question(name, index, name, rows) for index in keep]
    return write_sets(folder, chosen, "official", lambda q: q.id.split("/")[-2])


def _files(data: Path) -> list[Path]:
    return sorted(p for p in data.glob("*/*.jsonl") if p.parent.name in SETS)


def _load(name: str, settings: OfficialSettings, data: Path | None) -> Mapping[str, Any]:
    """The set's splits. Raises MissingData."""
    try:
        import datasets
    except ImportError:
        raise MissingData(
            "env.questions=official needs the `datasets` package; `pip install 'sage-opd[searchqa]'` has it."
        ) from None
    datasets.disable_progress_bars()
    try:
        if data is None:
            loaded = datasets.load_dataset(settings.dataset, name, revision=settings.revision)
        else:
            files = {file.stem: str(file) for file in _files(data) if file.parent.name == name}
            if not files:
                raise MissingData(f"{data} holds no {name}/<split>.jsonl.")
            loaded = datasets.load_dataset("json", data_files=files)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = reason_of(error)
        where = settings.dataset if data is None else str(data)
        raise MissingData(
            f"The set {name} cannot be read from {where} ({reason}); it needs a network, or a local copy "
            "named by env.data."
        ) from error
    splits: Mapping[str, Any] = loaded
    return splits


def _question(name: str, index: int, split: str, rows: Any) -> Question:
    """Row `index` of a split; its id says the set and the place, for the sets' own ids repeat."""
    row = rows[index]
    answers = tuple(str(answer) for answer in row["golden_answers"])
    identity = f"train/{name}/{index:06d}" if split == "train" else f"{name}/{index:06d}"
    return Question(identity, str(row["question"]).strip(), answers, _support(row.get("metadata")))


def _support(metadata: Any) -> tuple[str, ...]:
    """Titles of the supporting passages where the set names them (HotpotQA, 2WikiMultiHopQA), else none."""
    facts = metadata.get("supporting_facts") if isinstance(metadata, Mapping) else None
    titles = facts.get("title") if isinstance(facts, Mapping) else None
    return tuple(dict.fromkeys(map(str, titles))) if titles else ()

"""How to run it: `python benchmarks/searchqa.py` prints what docs/evidence/searchqa.md quotes about the
generated set: the expert's exact match, baselines that do not search, and how long retrieval takes."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from pathlib import Path

from sage.config.load import load
from sage.envs.base import expert_move
from sage.envs.searchqa.encyclopedia import World
from sage.envs.searchqa.question import Question, read_questions
from sage.envs.searchqa.retrieval.bm25 import Bm25
from sage.envs.searchqa.score import exact_match, f1
from sage.envs.searchqa.settings import SearchqaSettings


def questions(env: SearchqaSettings, split: str) -> list[Question]:
    tasks = env.tasks(split)
    read = read_questions(Path(tasks[0].path.rpartition("#")[0]))
    return [read[task.id] for task in tasks]


def expert(env: SearchqaSettings, split: str) -> tuple[int, int, float]:
    """(episodes won, episodes, seconds) of an expert that follows the chain as it reads it."""
    made = env.make()
    won, started, tasks = 0, time.perf_counter(), env.tasks(split)
    for task in tasks:
        made.reset(task)
        while (move := expert_move(made)) is not None:
            step = made.step(move.action)
            if step.done:
                won += step.won
                break
    return won, len(tasks), time.perf_counter() - started


def guess(asked: list[Question], answers: list[str]) -> str:
    """Exact match and F1 in % of one answer per question."""
    pairs = list(zip(asked, answers, strict=True))
    em = sum(exact_match(a, q.answers) for q, a in pairs) / len(pairs)
    return f"EM {100 * em:.1f}, F1 {100 * sum(f1(a, q.answers) for q, a in pairs) / len(pairs):.1f}"


def one_query(asked: list[Question], retriever: Bm25) -> float:
    """Share of questions whose text as the only query returns every gold passage among three."""
    return sum(set(q.gold) <= {p.title for p in retriever.search(q.text, 3)} for q in asked) / len(asked)


def main() -> None:
    env = load(["env=searchqa"]).env
    assert isinstance(env, SearchqaSettings)
    started = time.perf_counter()
    env.prepare()
    print(f"set ready after {time.perf_counter() - started:.1f} s")
    made = env.make()
    made.reset(env.tasks("train")[0])
    index = made._retriever  # type: ignore[attr-defined]
    trained = Counter(q.answers[0] for q in questions(env, "train")).most_common(1)[0][0]
    for split in [f"{name}_{hops}hop" for name in ("valid", "test") for hops in (1, 2, 3)]:
        asked = questions(env, split)
        own = Counter(q.answers[0] for q in asked).most_common(1)[0][0]
        won, count, seconds = expert(env, split)
        print(
            f"{split}: expert {won} of {count} in {seconds:.1f} s; without a search: commonest train answer "
            f"{guess(asked, [trained] * count)}; the set's own commonest {guess(asked, [own] * count)}; the "
            f"entity asked about {guess(asked, [q.gold[0] for q in asked])}; the question as the one query "
            f"finds all passages for {100 * one_query(asked, index):.1f} %"
        )
    for worlds in (1, 8):
        passages = [p for seed in range(worlds) for p in World("train", seed, 5000).passages()]
        started = time.perf_counter()
        bm25 = Bm25(passages, 1.5, 0.75)
        built = time.perf_counter() - started
        times = []
        for passage in passages[:500]:
            started = time.perf_counter()
            bm25.search(passage.title, 3)
            times.append(1000 * (time.perf_counter() - started))
        median = statistics.median(times)
        print(f"bm25, {len(passages)} passages: index {built:.2f} s, search median {median:.2f} ms")


if __name__ == "__main__":
    main()

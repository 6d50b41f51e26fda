"""Judge queries of whole episodes: prefill tokens with and without shared prefixes, and their time.

    OMP_NUM_THREADS=1 python benchmarks/judging.py [--episodes 8] [--turns 10] [--repeats 3]

Turns are played by the tiny student on generated games, in the style that is judged. For each style the
tokens that go through the teacher when every query stands alone, against those when a prefix that two
queries share is computed once (`reply` of sage.policy.decoding.generate); times are of the tiny teacher,
engine=packed with and without sharing and engine=hf, and all three must reply the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from timing import machine, print_table, take_turns

from sage.config.load import load
from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.pool import EnvPool
from sage.episode import Failure
from sage.objective.intervention.base import JudgeQuery, TurnContext
from sage.policy.decoding.answer import Reply, Sampling
from sage.policy.decoding.engine import right_engine
from sage.policy.decoding.generate import reply, shared_prefixes
from sage.policy.decoding.packed import PackedEngine
from sage.policy.decoding.static import StaticEngine
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.rollout import PlaySettings, play
from sage.policy.seat import Job
from sage.teacher.judge import TeacherJudge


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--static", action="store_true", help="count what a GPU's engine reads; no times")
    args = parser.parse_args()
    config = load(["tracking=none"])
    student, teacher = load_model(config.student), load_model(config.teacher)
    print(machine())
    short = config.prompt.styles["short"]
    how = PlaySettings(Sampling(0.4, 1.0, 32), short, 0, "benchmark", args.turns, 2048, 64, draft_tokens=10)
    jobs = [Job(task) for task in config.env.tasks("train")[: args.episodes]]
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 60.0) as pool:
        episodes = play(student, pool, jobs, how)
    turns = [TurnContext(e, t) for e in episodes for t in e.turns if t.failure is Failure.NONE]
    print(f"{len(turns)} judged turns of {len(episodes)} episodes, {torch.get_num_threads()} threads\n")

    print("| prompt style | tokens, each query alone | with shared prefixes | ratio |")
    print("|---|---|---|---|")
    prompts: dict[str, list[list[int]]] = {}
    for name, style in config.prompt.styles.items():
        judge = TeacherJudge(teacher, style, JudgeQuery(sees_feedback=True, max_new_tokens=8))
        found = sorted({tuple(judge._prompt(turn)) for turn in turns})
        prompts[name] = [list(p) for p in found]
        each = sum(map(len, found))
        # `reply` works in batches; what two batches share is computed in each.
        saved = sum(
            n
            for start in range(0, len(found), 64)
            for _, n in shared_prefixes(prompts[name][start : start + 64])
        )
        print(f"| {name} | {each:,} | {each - saved:,} | {each / (each - saved):.2f} |")
    print()
    if args.static:
        for name, queries in prompts.items():
            read, same = _read_by_static(teacher, queries)
            print(f"{name} style, engine=static: {read[0]:,} prompt tokens alone, {read[1]:,} with shared "
                  f"prefixes, {read[0] / read[1]:.2f}; {same} of {len(queries)} replies equal")  # fmt: skip
        return
    for name, queries in prompts.items():
        print(f"{name} style, tiny teacher:")

        def alone(queries: list[list[int]] = queries) -> list[Reply]:
            PackedEngine.shares = False
            try:
                return reply(teacher, queries, 8, engine="packed")
            finally:
                PackedEngine.shares = True

        timed = take_turns(
            {
                "engine=hf, each query alone": lambda q=queries: reply(teacher, q, 8, engine="hf"),
                "engine=packed, each query alone": alone,
                "engine=packed, shared prefixes": lambda q=queries: reply(teacher, q, 8, engine="packed"),
            },
            args.repeats,
        )
        first, *others = [[r.ids for r in one.result] for one in timed.values()]
        for other in others:
            same = sum(a == b for a, b in zip(first, other, strict=True))
            print(f"replies equal to the first side's: {same} of {len(first)}")
        print_table(timed, work=len(queries), unit="queries")
        print()


def _read_by_static(lm: LanguageModel, queries: list[list[int]]) -> tuple[list[int], int]:
    """Tokens that went through the engine's prompt forwards, alone and shared, and how many replies agree."""
    right_engine(lm, "static")  # measured here, so that it is not counted
    count, read, said = [0], [], []
    run: Callable[..., Any] = StaticEngine._run

    def counted(engine: StaticEngine, chunk: bool, parts: Any, slot: int) -> Any:
        count[0] += sum(len(ids) for *_, ids in parts) if chunk else 0
        return run(engine, chunk, parts, slot)

    for shares in (False, True):
        count[0] = 0
        with patch.multiple(StaticEngine, _run=counted, shares=shares):
            said.append([r.ids for r in reply(lm, queries, 8, engine="static", draft_tokens=0)])
        read.append(count[0])
    return read, sum(a == b for a, b in zip(*said, strict=True))


if __name__ == "__main__":
    main()

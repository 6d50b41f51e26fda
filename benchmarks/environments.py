"""Steps per second of the environments, and what the pool adds to a step.

    OMP_NUM_THREADS=1 python benchmarks/environments.py [--steps 20000] [--ray]

Actions are drawn from the admissible ones with a fixed seed on generated games, so every side takes the same
steps and sees the same text (checked). Parity with the original engine is `benchmarks/alfworld_parity.py`.
--ray also plays through one Ray actor per environment (`pip install ray`). CPU seconds of the main process;
for worker processes wall seconds count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from timing import machine

from sage.config.load import load
from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.pool import EnvPool, PoolStep
from sage.episode import Task

SLOTS, TURNS = 16, 30


def plan(task: Task, seed: int) -> list[str]:
    """Admissible actions of one episode, drawn with a fixed seed, until it ends."""
    environment, draw = AlfworldEnvironment("native"), random.Random(seed)
    step = environment.reset(task)
    actions: list[str] = []
    while len(actions) < TURNS and not step.done:
        actions.append(draw.choice(step.admissible))
        step = environment.step(actions[-1])
    environment.close()
    return actions


def alone(tasks: list[Task], plans: list[list[str]]) -> tuple[list[str], float]:
    """Every observation, and the CPU seconds of the steps alone (resets are not counted)."""
    said, spent = [], 0.0
    environment = AlfworldEnvironment("native")
    for task, actions in zip(tasks, plans, strict=True):
        environment.reset(task)
        started = time.process_time()
        steps = [environment.step(action) for action in actions]
        spent += time.process_time() - started
        said += [step.observation for step in steps]
    environment.close()
    return said, spent


def side_by_side(
    tasks: list[Task],
    plans: list[list[str]],
    reset: Callable[[list[tuple[int, Task]]], Any],
    step: Callable[[list[tuple[int, str]]], dict[int, Any]],
    clock: Callable[[], float],
) -> tuple[list[str], float]:
    """SLOTS episodes at a time, a batch of steps a turn: what they saw, and the seconds of `step` alone."""
    said: list[str] = []
    spent = 0.0
    for first in range(0, len(tasks), SLOTS):
        some = range(first, min(first + SLOTS, len(tasks)))
        reset([(i - first, tasks[i]) for i in some])
        seen: dict[int, list[str]] = {i: [] for i in some}
        for turn in range(TURNS):
            wanted = [(i - first, plans[i][turn]) for i in some if turn < len(plans[i])]
            started = clock()
            results = step(wanted) if wanted else {}
            spent += clock() - started
            for slot, result in results.items():
                # A pool wraps what an environment says.
                heard = result.step if isinstance(result, PoolStep) else result
                seen[first + slot].append(heard.observation)
        said += [text for i in some for text in seen[i]]
    return said, spent


def in_turns(tasks: list[Task], plans: list[list[str]]) -> tuple[list[str], float]:
    """A bare loop over SLOTS environments: what a pool would cost if it did nothing."""
    crew = [AlfworldEnvironment("native") for _ in range(SLOTS)]

    def reset(wanted: list[tuple[int, Task]]) -> None:
        for slot, task in wanted:
            crew[slot].reset(task)

    def step(wanted: list[tuple[int, str]]) -> dict[int, Any]:
        return {slot: crew[slot].step(action) for slot, action in wanted}

    played = side_by_side(tasks, plans, reset, step, time.process_time)
    for environment in crew:
        environment.close()
    return played


def pooled(tasks: list[Task], plans: list[list[str]], workers: int) -> tuple[list[str], float]:
    """The same through a pool."""
    clock = time.perf_counter if workers else time.process_time
    with EnvPool(partial(AlfworldEnvironment, "native"), workers, 60.0) as pool:
        return side_by_side(tasks, plans, pool.reset_many, pool.step_many, clock)


def actors(tasks: list[Task], plans: list[list[str]]) -> tuple[list[str], float]:
    """One Ray actor per environment, stepped in a batch and gathered by one `ray.get`."""
    import ray

    ray.init(num_cpus=SLOTS, include_dashboard=False, logging_level="error", configure_logging=False)
    cls = ray.remote(AlfworldEnvironment)
    crew = [cls.remote("native") for _ in range(SLOTS)]

    def reset(wanted: list[tuple[int, Task]]) -> None:
        ray.get([crew[slot].reset.remote(task) for slot, task in wanted])

    def step(wanted: list[tuple[int, str]]) -> dict[int, Any]:
        steps = ray.get([crew[slot].step.remote(action) for slot, action in wanted])
        return {slot: one for (slot, _), one in zip(wanted, steps, strict=True)}

    played = side_by_side(tasks, plans, reset, step, time.perf_counter)
    ray.shutdown()
    return played


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="also a pool with this many processes")
    parser.add_argument("--ray", action="store_true")
    args = parser.parse_args()
    tasks = load(["tracking=none"]).env.tasks("train")[: -(-args.steps // TURNS)]
    plans = [plan(task, i) for i, task in enumerate(tasks)]
    count = sum(map(len, plans))
    print(machine())
    print(f"{count} steps of {len(tasks)} generated ALFWorld games\n")
    sides: dict[str, Callable[[], tuple[list[str], float]]] = {
        "native engine alone (CPU)": lambda: alone(tasks, plans),
        f"{SLOTS} engines in turns (CPU)": lambda: in_turns(tasks, plans),
        "pool, workers=0 (CPU)": lambda: pooled(tasks, plans, 0),
    }
    if args.workers:
        sides[f"pool, workers={args.workers} (wall)"] = lambda: pooled(tasks, plans, args.workers)
    if args.ray:
        sides["one Ray actor per environment (wall)"] = lambda: actors(tasks, plans)
    found: dict[str, list[float]] = {name: [] for name in sides}
    texts: dict[str, Any] = {}
    for _ in range(args.repeats):
        for name, side in sides.items():
            texts[name], seconds = side()
            found[name].append(seconds)
    base = statistics.median(next(iter(found.values())))
    print("| side | steps/s, median (range) | microseconds a step | against the engine alone |")
    print("|---|---|---|---|")
    for name, seconds_ in found.items():
        middle = statistics.median(seconds_)
        print(
            f"| {name} | {count / middle:,.0f} "
            f"({count / max(seconds_):,.0f} to {count / min(seconds_):,.0f}) "
            f"| {1e6 * middle / count:.0f} | {middle / base - 1:+.1%} |"
        )
        if texts[name] != next(iter(texts.values())):
            print(f"NOT EQUAL: {name} saw another text")
    try:
        import sage.envs.scienceworld  # noqa: F401
    except ImportError:
        print("\nScienceWorld: not measured, env=scienceworld is not in this checkout.")
    else:
        print("\nScienceWorld: benchmarks/scienceworld_speed.py.")


if __name__ == "__main__":
    main()

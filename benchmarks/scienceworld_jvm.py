"""What a ScienceWorld JVM costs: start, load, step and memory, for flags and for 1, 2 and 4 JVMs at once.

    python benchmarks/scienceworld_jvm.py [--paths 12]

Each JVM plays the same gold paths (one of every task whose path has at most 31 actions, `--paths` of them),
in a process of its own. CPU seconds are the JVM's, so they can be compared on a busy machine; wall seconds
cannot. Memory is the JVM's resident set after all paths. docs/evidence/scienceworld.md has the results.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import dataclass

import psutil

from sage.envs.scienceworld.gold import paths
from sage.envs.scienceworld.jvm import JVM_FLAGS, Simulator
from sage.envs.scienceworld.tasks import VARIATIONS, chosen, parse_id

HASH = ("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
FLAGS = {
    "Java's own choice": (),
    "serial, 300 MB": ("-Xmx300m", "-XX:+UseSerialGC"),
    "serial, 300 MB, equal hashes": ("-Xmx300m", "-XX:+UseSerialGC", *HASH),
    "serial, 600 MB, equal hashes": ("-Xmx600m", "-XX:+UseSerialGC", *HASH),
    "parallel, 600 MB, equal hashes": ("-Xmx600m", "-XX:+UseParallelGC", *HASH),
    "C1 only, 600 MB, equal hashes": ("-Xmx600m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *HASH),
    "the package's choice here": JVM_FLAGS,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall and CPU seconds of the start; CPU seconds a load and a step; megabytes."""

    start_wall: float
    start_cpu: float
    load: float
    step: float
    step_wall: float
    memory: float


def short_paths(count: int) -> list[str]:
    """Task ids of the first `count` tasks whose gold path has at most 31 actions."""
    names = [f"{task}/{chosen(task, 'test', 1)[0]}" for task in VARIATIONS]
    return [name for name in names if len(paths()[name]) <= 31][:count]


def measure(flags: tuple[str, ...], count: int) -> Cost:
    """Play `count` gold paths in a fresh JVM."""
    names = short_paths(count)
    begun = time.perf_counter()
    simulator = Simulator(flags)
    process = psutil.Process(simulator.pid)

    def cpu() -> float:
        times = process.cpu_times()
        return times.user + times.system

    start_wall, start_cpu = time.perf_counter() - begun, cpu()
    session = simulator.open()
    load = step = wall = 0.0
    steps = 0
    for name in names:
        before = cpu()
        simulator.load(session, *parse_id(name), "easy")
        middle, clock = cpu(), time.perf_counter()
        for action in paths()[name].actions:
            simulator.step(session, action)
        steps += len(paths()[name])
        load, step, wall = load + middle - before, step + cpu() - middle, wall + time.perf_counter() - clock
    memory = process.memory_info().rss / 1e6
    simulator.close()
    return Cost(start_wall, start_cpu, load / len(names), step / steps, wall / steps, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=12)
    count = parser.parse_args().paths
    print(f"load average {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")
    print("| flags | JVMs | start s (CPU) | load CPU s | step CPU ms | step wall ms | MB each |")
    print("|---|---|---|---|---|---|---|")
    rows = [(label, flags, 1) for label, flags in FLAGS.items()]
    rows += [("the package's choice here", JVM_FLAGS, n) for n in (2, 4)]
    for label, flags, jvms in rows:
        with multiprocessing.get_context("spawn").Pool(jvms) as pool:
            costs = pool.starmap(measure, [(flags, count)] * jvms, chunksize=1)
        mean = {f: sum(getattr(c, f) for c in costs) / jvms for f in Cost.__slots__}
        print(
            f"| {label} | {jvms} | {mean['start_wall']:.1f} ({mean['start_cpu']:.1f}) | {mean['load']:.2f} |"
            f" {1000 * mean['step']:.1f} | {1000 * mean['step_wall']:.1f} | {mean['memory']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""ScienceWorld's steps per second in the workbench, against its JVM alone.

    OMP_NUM_THREADS=1 python benchmarks/scienceworld_speed.py [--paths 12]     # needs a JDK (javac)

The same gold paths (one of each task, of at most 31 actions) by a Java program that calls the simulator
directly, through our environment, and through a pool of `--slots` episodes side by side. Each side has a
fresh JVM with the same flags, plays everything `--rounds` times, and the last time counts; text, score and
end of every step are compared. Seconds are of steps (loading is not counted): CPU of Python and JVM together,
and wall.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from scienceworld_jvm import short_paths
from timing import machine

from sage.envs.pool import EnvPool, PoolStep
from sage.envs.scienceworld import jvm
from sage.envs.scienceworld.env import ScienceWorldEnvironment
from sage.envs.scienceworld.gold import paths
from sage.envs.scienceworld.tasks import parse_id
from sage.episode import Task

Said = list[str]
Side = Callable[[], tuple[Said, float, float]]
"""Plays everything; what was said to each action, and the CPU and wall seconds of the steps."""


def line(text: str, score: float, done: bool) -> str:
    return f"{' '.join(text.split())}|{round(score)}|{str(done).lower()}"


def java(names: list[str], rounds: int, folder: str) -> tuple[Said, float, float]:
    from scienceworld.constants import BASEPATH, JAR_PATH

    source = Path(__file__).with_name("ScienceWorldAlone.java")
    subprocess.run(["javac", "-cp", JAR_PATH, "-d", folder, str(source)], check=True)
    episodes = []
    for name in names:
        task, variation = parse_id(name)
        episodes.append("\t".join([task, str(variation), *paths()[name].actions]))
    command = ["java", *jvm.JVM_FLAGS, "-cp", f"{JAR_PATH}:{folder}", "ScienceWorldAlone", str(rounds)]
    done = subprocess.run(
        command, input="\n".join(episodes), capture_output=True, text=True, check=True, cwd=BASEPATH
    )
    lines = done.stdout.splitlines()
    said = [text.removeprefix("SAID ") for text in lines if text.startswith("SAID ")]
    spent = next(text for text in lines if text.startswith("SPENT "))
    wall, cpu = (int(number) / 1e9 for number in spent.split()[1:])
    return said, cpu, wall


class Clock:
    """CPU seconds of this process and its JVM, and wall seconds, of what happens inside `with`."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    def _now(self) -> tuple[float, float]:
        times = psutil.Process(jvm.shared().pid).cpu_times()
        return time.process_time() + times.user + times.system, time.perf_counter()

    def __enter__(self) -> None:
        self._started = self._now()

    def __exit__(self, *_: object) -> None:
        cpu, wall = self._now()
        self.cpu += cpu - self._started[0]
        self.wall += wall - self._started[1]


def task_of(name: str) -> Task:
    return Task(name, "scienceworld", "test", parse_id(name)[0], "official")


def alone(names: list[str], rounds: int) -> tuple[Said, float, float]:
    environment = ScienceWorldEnvironment()
    for _ in range(rounds):
        said, clock = [], Clock()
        for name in names:
            environment.reset(task_of(name))
            with clock:
                steps = [environment.step(action) for action in paths()[name].actions]
            said += [line(step.observation, step.score, step.done) for step in steps]
    environment.close()
    return said, clock.cpu, clock.wall


def pooled(names: list[str], rounds: int, slots: int) -> tuple[Said, float, float]:
    with EnvPool(ScienceWorldEnvironment, 0, 60.0) as pool:
        for _ in range(rounds):
            clock = Clock()
            seen: dict[int, Said] = {i: [] for i in range(len(names))}
            for first in range(0, len(names), slots):
                some = range(first, min(first + slots, len(names)))
                pool.reset_many([(i - first, task_of(names[i])) for i in some])
                with clock:
                    for turn in range(max(len(paths()[names[i]]) for i in some)):
                        wanted = [
                            (i - first, paths()[names[i]].actions[turn])
                            for i in some
                            if turn < len(paths()[names[i]])
                        ]
                        for slot, result in pool.step_many(wanted).items():
                            assert isinstance(result, PoolStep), result
                            step = result.step
                            seen[first + slot].append(line(step.observation, step.score, step.done))
    return [text for said in seen.values() for text in said], clock.cpu, clock.wall


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paths", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slots", type=int, default=8)
    args = parser.parse_args()
    if shutil.which("javac") is None:
        raise SystemExit("benchmarks/scienceworld_speed.py needs a JDK: no javac is on the PATH.")
    names = short_paths(args.paths)
    count = sum(len(paths()[name]) for name in names)
    print(machine())
    print(f"{count} steps of {len(names)} gold paths, round {args.rounds} of a fresh JVM\n")
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Side] = {
            "JVM alone": partial(java, names, args.rounds, folder),
            "environment": partial(alone, names, args.rounds),
            f"pool, {args.slots} episodes side by side": partial(pooled, names, args.rounds, args.slots),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        said: dict[str, Said] = {}
        for _ in range(args.repeats):
            for name, side in sides.items():
                said[name], cpu, wall = side()
                found[name].append((cpu, wall))
    base = [statistics.median(column) for column in zip(*found["JVM alone"], strict=True)]
    print("| side | steps per CPU s, median (range) | of the JVM's | steps per wall s | of the JVM's |")
    print("|---|---|---|---|---|")
    for name, pairs in found.items():
        cpus, walls = zip(*pairs, strict=True)
        cpu, wall = statistics.median(cpus), statistics.median(walls)
        spread = f"({count / max(cpus):,.0f} to {count / min(cpus):,.0f})"
        print(
            f"| {name} | {count / cpu:,.0f} {spread} | {base[0] / cpu:.1%} "
            f"| {count / wall:,.0f} | {base[1] / wall:.1%} |"
        )
        same = sum(a == b for a, b in zip(said[name], said["JVM alone"], strict=True))
        if same < count:
            print(f"NOT EQUAL: {name} heard the JVM's own words {same} of {count} times")


if __name__ == "__main__":
    main()

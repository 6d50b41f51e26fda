"""What all benchmarks share: sides that take turns on the same inputs, and one honest table of their times.

The sides of a comparison run one after the other, again and again (A B A B ...), so that a busy machine
disturbs both. CPU seconds are those of this process (all its threads), wall seconds what a user waits.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timed:
    """Wall and CPU seconds of each repeat of one side, and what its last repeat returned."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    result: Any = None


def take_turns(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timed]:
    """Run every side `repeats` times, in turns."""
    timed = {name: Timed() for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            timed[name].result = side()
            timed[name].wall.append(time.perf_counter() - wall)
            timed[name].cpu.append(time.process_time() - cpu)
    return timed


def print_table(timed: Mapping[str, Timed], *, work: float = 0, unit: str = "") -> None:
    """Median and range of each side, `work` per CPU second, and CPU time against the first side's."""
    first = statistics.median(next(iter(timed.values())).cpu)
    rate = f" {unit + '/s':>12} |" if work else ""
    print(f"| {'side':<42} | CPU s, median (range) | wall s, median |{rate} ratio |")
    print("|---|---|---|" + ("---|" if work else "") + "---|")
    for name, one in timed.items():
        cpu, wall = statistics.median(one.cpu), statistics.median(one.wall)
        spread = f"{cpu:.3g} ({min(one.cpu):.3g} to {max(one.cpu):.3g})"
        done = f" {work / cpu:>12,.0f} |" if work else ""
        print(f"| {name:<42} | {spread:<21} | {wall:<14.3g} |{done} {first / cpu:.2f} × |")


def machine() -> str:
    """One line: processor, cores, load when asked."""
    name = "unknown processor"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":")[1].strip() for line in file if "model name" in line), name)
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, load average {load:.1f} (other work beside it if above 1)"

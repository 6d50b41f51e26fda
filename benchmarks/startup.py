"""How long `python -m sage` takes to answer: help, a config error, the composed config.

    python benchmarks/startup.py [repeats]

Prints the best and median wall time and the best CPU time of each, in seconds. The promise is 1.5 s of wall
time on an idle machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

LINES = {
    "--help": ["--help"],
    "config error": ["trainer.lerning_rate=1"],
    "--cfg job": ["--cfg", "job"],
    "refused value": ["seed=x"],
}


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'':<16}{'best':>8}{'median':>8}{'CPU':>8}")
    with tempfile.TemporaryDirectory() as empty:
        for name, arguments in LINES.items():
            walls, cpus = [], []
            for _ in range(repeats):
                used, since = _children_cpu(), time.perf_counter()
                subprocess.run([sys.executable, "-m", "sage", *arguments], cwd=empty, capture_output=True)
                walls.append(time.perf_counter() - since)
                cpus.append(_children_cpu() - used)
            print(f"{name:<16}{min(walls):>8.2f}{statistics.median(walls):>8.2f}{min(cpus):>8.2f}")


def _children_cpu() -> float:
    now = os.times()
    return now.children_user + now.children_system


if __name__ == "__main__":
    main()

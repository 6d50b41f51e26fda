"""What a sweep costs beside its runs: seconds for each run on one worker, and the parent's memory.

    python benchmarks/sweep_overhead.py [runs] [more words for the line]

A sweep of 100 runs whose work is nothing. Their processes do not even import torch, so that only Python's own
start is taken off. The promise: at most 1.5 s a run beyond Python's and torch's import, and a parent below
300 MB. CPU seconds are of all processes, and are the ones to read on a machine that is not idle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = [
    *("--config-dir", str(ROOT / "tests" / "outside" / "conf")),
    *("plugins=[tests.outside.plugin]", "env=dummy", "tracking=none"),
]
STARTS = 5


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    search = os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])
    environment = {**os.environ, "PYTHONPATH": search}
    seeds = ",".join(map(str, range(runs)))
    line = [sys.executable, "-m", "sage", "-m", f"seed={seeds}", *WORDS, *sys.argv[2:]]
    with tempfile.TemporaryDirectory() as empty:
        wall, cpu, peak = _measured(line, environment, empty)
        starts = [_measured([sys.executable, "-c", "pass"], environment, empty) for _ in range(STARTS)]
        done = len(list(Path(empty).glob("runs/*/attempt_1/status.json")))
    start_wall, start_cpu = (sorted(start[i] for start in starts)[STARTS // 2] for i in range(2))
    print(f"{done} runs; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':<26}{'wall s':>8}{'CPU s':>8}")
    print(f"{'a run of the sweep':<26}{wall / runs:>8.2f}{cpu / runs:>8.2f}")
    print(f"{'a start of Python':<26}{start_wall:>8.2f}{start_cpu:>8.2f}")
    over_wall, over_cpu = wall / runs - start_wall, cpu / runs - start_cpu
    print(f"{'overhead':<26}{over_wall:>8.2f}{over_cpu:>8.2f}   (promise: 1.5)")
    print(f"parent's peak memory {peak:.0f} MB (promise: 300)")


def _measured(command: list[str], environment: dict[str, str], folder: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of it and its children, its own peak resident memory in MB."""
    used, since, peak = _children_cpu(), time.perf_counter(), 0.0
    process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, _peak_mb(process.pid))
        time.sleep(0.02)
    return time.perf_counter() - since, _children_cpu() - used, peak


def _peak_mb(pid: int) -> float:
    """VmHWM: of this process alone, unlike what `wait4` tells."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)


def _children_cpu() -> float:
    now = os.times()
    return now.children_user + now.children_system


if __name__ == "__main__":
    main()

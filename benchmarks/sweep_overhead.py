"""What a sweep costs beside its runs: seconds for each run on one worker, and the parent's memory.

    python benchmarks/sweep_overhead.py [runs] [more words for the line]

A sweep of 100 runs whose work is nothing, against as many processes that only import torch, in turns of ten
so that both meet the same load. Promised: at most 1.5 s a run beyond that import, and a parent below 300 MB.
CPU seconds are of all processes, and are the ones to compare on a machine that is not idle.
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
TURN = 10


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    search = os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])
    environment = {**os.environ, "PYTHONPATH": search}
    seeds = ",".join(map(str, range(runs)))
    line = [sys.executable, "-m", "sage", "-m", f"seed={seeds}", *WORDS, *sys.argv[2:]]
    with tempfile.TemporaryDirectory() as empty:
        wall, cpu, peak = _measured(line, environment, empty)
        imports = [_measured([sys.executable, "-c", "import torch"], environment, empty) for _ in range(TURN)]
        done = len(list(Path(empty).glob("runs/*/attempt_1/status.json")))
    import_wall = sorted(i[0] for i in imports)[TURN // 2]
    import_cpu = sorted(i[1] for i in imports)[TURN // 2]
    print(f"{done} runs; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':<26}{'wall s':>8}{'CPU s':>8}")
    print(f"{'a run of the sweep':<26}{wall / runs:>8.2f}{cpu / runs:>8.2f}")
    print(f"{'import torch':<26}{import_wall:>8.2f}{import_cpu:>8.2f}")
    over_wall, over_cpu = wall / runs - import_wall, cpu / runs - import_cpu
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

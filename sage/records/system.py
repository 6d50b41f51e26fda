"""What a run takes of its machine, sampled while it works: `system.jsonl` in its folder, a line a sample.

Sampled in the run's main process by a thread, so that it is the machine that works, wherever the logger's
process is. A sample that fails is left out: it is no reason for a run to fail.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sage.records.owner import writing
from sage.records.repeated import repeated
from sage.records.rundir import RunDir

FILE = "system.jsonl"
MIB = 2**20


@contextmanager
def sampling(folder: RunDir, every_s: float) -> Iterator[None]:
    """Sample every `every_s` seconds while the block runs; 0: never."""
    if not every_s:
        yield
        return
    usage: Usage | None = None

    def sample() -> None:
        nonlocal usage
        with suppress(Exception):
            usage = usage or Usage()
            line = json.dumps(usage.sample()) + "\n"
            with writing(folder.path), (folder.path / FILE).open("a", encoding="utf-8") as file:
                file.write(line)

    with repeated(sample, every_s, "system", wait_s=5):
        yield


class Usage:
    """Of this process and those that it started."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._before = (time.monotonic(), self._cpu_seconds())

    def sample(self) -> dict[str, float]:
        """Since the sample before: cores kept busy; now: memory of the processes and of the GPU, MiB."""
        now = (time.monotonic(), self._cpu_seconds())
        seconds = now[0] - self._before[0]
        found = {"time": time.time()}
        if seconds > 0:  # a child that has ended takes its seconds with it
            found["cpu_cores_busy"] = max(0.0, (now[1] - self._before[1]) / seconds)
        self._before = now
        found["memory_mib"] = sum(self._each(lambda process: process.memory_info().rss)) / MIB
        return found | _gpu()

    def _cpu_seconds(self) -> float:
        return sum(self._each(lambda process: sum(process.cpu_times()[:2])))

    def _each(self, value: Any) -> list[float]:
        import psutil

        found = []
        for process in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.Error):
                found.append(float(value(process)))
        return found


def _gpu() -> dict[str, float]:
    """Of the GPU that torch uses; empty without one, and before torch has touched it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    free, whole = torch.cuda.mem_get_info()
    found = {"gpu_memory_mib": (whole - free) / MIB}
    with suppress(Exception):  # it asks a package that may not be there
        found["gpu_utilization_percent"] = float(torch.cuda.utilization())
    return found


class Samples:
    """The samples of a run, as they come."""

    def __init__(self, folder: Path) -> None:
        self._path, self._offset, self._count = folder / FILE, 0, 0

    def new(self) -> list[tuple[int, dict[str, float]]]:
        """Those since the last call, each with its number; a line that is cut or foreign is left out."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            with suppress(ValueError, TypeError, AttributeError):
                sample = {str(key): float(value) for key, value in json.loads(line).items()}
                found.append((self._count, sample))
            self._count += 1
        return found

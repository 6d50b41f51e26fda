"""The `speed_` columns of the steps table: what each phase of a step reached, and the device's own rates.

Shares are of the main process: its operations and bytes, its seconds, its devices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sage.config.schema import SpeedSettings
from sage.records.clock import Work
from sage.records.ledger import WORK
from sage.teacher.elsewhere import RemoteTeacher
from sage.training.batch import Models

GIB = 2**30


def speed_columns(
    row: Mapping[str, Any], work: Mapping[str, Work], models: Models, speed: SpeedSettings
) -> dict[str, float | None]:
    """`row` has the tokens and seconds of the step, `work` what this process did in it."""

    def over(amount: float, phase: str, rate: Callable[[], float] = lambda: 1.0) -> float | None:
        seconds = row[f"seconds_{phase}"]
        return amount / seconds / rate() if amount and seconds else None

    found: dict[str, float | None] = {}
    for phase, column in WORK.items():
        found[f"speed_tokens_{phase}"] = over(row[column], phase)
        found[f"speed_peak_{phase}"] = work[phase].peak / GIB or None
    student, teacher = models.student, models.teacher
    of_student = matrix_rate_of(student.device, student.model.dtype, speed)
    found["speed_matrix_student"] = over(work["student"].operations, "student", of_student)
    found["speed_matrix_teacher"] = None
    if not isinstance(teacher, RemoteTeacher):
        of_teacher = matrix_rate_of(teacher.device, teacher.model.dtype, speed)
        found["speed_matrix_teacher"] = over(work["teacher"].operations, "teacher", of_teacher)
    found["speed_memory_rollout"] = over(
        work["rollout"].read, "rollout", lambda: speed.memory_rate or memory_rate(student.device)
    )
    return found


def matrix_rate_of(device: torch.device, dtype: torch.dtype, speed: SpeedSettings) -> Callable[[], float]:
    """Operations a second, asked for only where there is something to divide: set, or measured once."""
    return lambda: speed.matrix_rate or matrix_rate(device, dtype)


def rates_line(models: Models, speed: SpeedSettings) -> str:
    """For the log: what shares are given of."""
    student = models.student
    matrix = matrix_rate_of(student.device, student.model.dtype, speed)()
    memory = speed.memory_rate or memory_rate(student.device)
    how = ["as set" if rate else "measured" for rate in (speed.matrix_rate, speed.memory_rate)]
    return (
        f"shares of the device's rates are of {matrix:.3g} operations a second ({how[0]}, "
        f"{student.model.dtype}) and {memory:.3g} bytes a second ({how[1]})"
    )


@cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large product of matrices in this dtype, the best of three; once a process,
    with the threads that torch has then."""
    size = 8192 if device.type == "cuda" else 640
    with torch.inference_mode():
        a = torch.ones(size, size, device=device, dtype=dtype)
        return 2.0 * size**3 / _best(lambda: a @ a, device)


@cache
def memory_rate(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes, the best of three; once a process."""
    size = 2**28 if device.type == "cuda" else 2**25
    with torch.inference_mode():
        a = torch.ones(size, device=device, dtype=torch.int8)
        b = torch.empty_like(a)
        return 2.0 * size / _best(lambda: b.copy_(a), device)


def _best(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of three, after one to warm up."""
    taken = []
    for _ in range(4):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_of(device: torch.device) -> Callable[[], int] | None:
    """For `PhaseClock.watch`: the most bytes in use on a GPU, or, where the student is on the CPU of a Linux,
    in this process, since it was asked last; None where neither can be told."""
    if device.type == "cuda":

        def allocated() -> int:
            most = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            return most

        return allocated
    try:
        _resident()
    except (OSError, StopIteration, ValueError):
        return None
    return _resident


def _resident() -> int:
    """The high-water mark of this process's memory, which is then lowered to what it holds (proc(5))."""
    status = Path("/proc/self/status").read_text("ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return int(line.split()[1]) * 1024

"""A real Ray cluster of two workers, and a teacher that `python -m sage teacher start` has put on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launch.test_elsewhere import cluster
from tests.launch.test_multirun import ROOT

__all__ = ["cluster"]

PATH = "teacher.path=sage://tiny-teacher"
ON_CPU = ("teacher.ray.num_gpus=0", "teacher.dtype=float32", "teacher.ray.patience_s=300")
Sage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def sage(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Sage:
    """Runs `python -m sage ...` in a folder of its own, which finds the cluster at RAY_ADDRESS."""
    folder = tmp_path_factory.mktemp("runs")
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": cluster, "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])
    given = {**os.environ, **quiet, "PYTHONPATH": paths, "SAGE_CACHE": str(folder / "games")}

    def run(*words: str, before: tuple[str, ...] = ("-m", "sage")) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *before, *words],
            cwd=folder,
            env=given,
            capture_output=True,
            text=True,
            timeout=900,
            encoding="utf-8",
        )

    run.folder, run.environment = folder, given  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="module")
def teacher(sage: Sage) -> Iterator[tuple[str, ...]]:
    """The words of a run about a teacher of two replicas that is there."""
    words = (PATH, *ON_CPU)
    started = sage("teacher", "start", *words, "teacher.ray.replicas=2", "teacher.ray.num_cpus=0.5")
    assert started.returncode == 0, started.stderr
    assert "2 started" in started.stdout
    yield ("teacher=ray", *words)
    stopped = sage("teacher", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "is stopped (2 replicas)" in stopped.stdout


def folder_of(sage: Sage) -> Path:
    return sage.folder  # type: ignore[attr-defined]

"""Several processes of one run: one of them claims, all of them run in the same attempt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.test_multirun import COMMON, ROOT


@pytest.mark.slow
def test_two_processes_share_one_attempt(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "sage"]
    ended = subprocess.run(
        [*command, *COMMON], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    (attempt,) = tmp_path.glob("runs/*/attempt_*")
    pids = {line.rpartition(" ")[2] for line in (attempt / "log.txt").read_text().splitlines()}
    assert len(pids) == 2
    assert '"state": "done"' in (attempt / "status.json").read_text()

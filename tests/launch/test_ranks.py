"""Several processes of one run: one of them claims, all of them run in the same attempt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

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


@pytest.mark.slow
def test_a_run_with_a_cut_optimizer_is_the_run_of_one_process(tmp_path: Path) -> None:
    """The shipped models on generated games: the same steps and weights, and one writer."""
    small = ["trainer.steps=2", "trainer.tasks_per_step=4", "evaluation.limit=4", "tracking=none"]
    config = str(ROOT / "conf" / "accelerate" / "fsdp_cpu.yaml")
    launch = ["accelerate.commands.launch", "--config_file", config, "--main_process_port", "0"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    rows, weights = [], []
    for name, command in (("one", []), ("two", [*launch, "-m"])):
        (tmp_path / name).mkdir()
        ended = subprocess.run(
            [sys.executable, "-m", *command, "sage", *small],
            cwd=tmp_path / name, env=environment, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        (attempt,) = (tmp_path / name).glob("runs/*/attempt_*")
        rows.append(pd.read_parquet(attempt / "steps.parquet"))
        weights.append(load_file(next(attempt.glob("checkpoints/*/student/*.safetensors"))))
    for column in ("loss", "z", "grad_norm", "relative_weight_change", "student_tokens", "teacher_tokens"):
        assert rows[1][column].tolist() == pytest.approx(rows[0][column].tolist(), rel=1e-5), column
    for key, weight in weights[0].items():
        torch.testing.assert_close(weights[1][key], weight, rtol=1e-5, atol=1e-5)

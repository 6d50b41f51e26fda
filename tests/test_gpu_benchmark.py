"""benchmarks/gpu.py runs every part in small on a CPU, and what it says of correctness holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_part_runs_in_small_and_is_right(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--small", "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {
        *("right", "decode", "turns", "memory", "loss", "judge", "student", "checkpoints", "step")
    }
    assert not [row for row in rows if "FAILED" in row["note"] or "NOT EQUAL" in row["note"]]
    found = {row["what"]: row["value"] for row in rows}
    assert found["answers of static equal alone and side by side, bf16"] == 8
    assert found["greedy ids of static equal those of hf, f32"] == 8
    assert found["loss in f32 against float64, relative"] < 1e-5
    assert found["its gradient in f32 against float64, relative"] < 1e-5
    assert found["its gradient in bf16 against float64, relative"] < 0.02
    assert found["gradient of packed episodes, off that of padded ones by"] < 1e-5
    judged = "8B, 12 queries of 2 episodes, engine static"
    assert found[f"{judged}: tokens of prompts, alone over shared"] == pytest.approx(
        12 * 72 / (2 * 60 + 12 * 12)
    )
    assert found[f"{judged}: replies equal"] == 12
    assert found["8B, an episode of 204 tokens, 6 questions of 100: states of the scoring pass off by"] == 0
    (barrier,) = [row for row in rows if row["what"] == "the same without a barrier"]
    assert barrier["note"] == "6 of 6 episodes equal"
    # What is not there is said, and has no figure.
    assert all(row["value"] is None for row in rows if row["note"] in ("not built", "no time left"))
    assert done.stdout.count("| step |") == 5


def test_without_a_card_it_says_how_to_run_in_small(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "benchmarks/gpu.py")]
    blind = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False, env=blind)
    assert done.returncode == 2
    assert "--small runs every part in small" in done.stderr

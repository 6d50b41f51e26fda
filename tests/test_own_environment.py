"""An environment outside the package runs through `python -m sage` unchanged (docs/examples)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sage.records.tables import read

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "own_environment"


def test_an_environment_of_ones_own_is_one_file_and_two_yamls(tmp_path: Path) -> None:
    paths = (ROOT, ROOT / "sweeps", EXAMPLE)
    line = [
        *("--config-dir", str(EXAMPLE / "conf"), "plugins=[drawers]", "env=drawers"),
        *("trainer.steps=2", "trainer.tasks_per_step=4", "speed.threads=1", "tracking=none"),
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "sage", *line],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "sage_opd on drawers (generated games), seed 0" in ended.stdout
    (folder,) = tmp_path.glob("runs/*/attempt_1")
    episodes = read(folder, "episodes").to_pylist()
    assert sorted(e["task"] for e in episodes if e["phase"] == "eval") == sorted(
        [f"test/{n:04d}" for n in range(8)] * 2
    )
    assert {e["env"] for e in episodes} == {"drawers"}
    assert all(e["ok"] for e in episodes)
    trained = [turn for turn in read(folder, "turns").to_pylist() if turn["phase"] == "train"]
    assert {turn["split"] for turn in trained} == {"train"}
    assert all(turn["expert_distance_before"] == 1 and turn["label"] for turn in trained)
    assert json.loads((folder / "status.json").read_text())["state"] == "done"

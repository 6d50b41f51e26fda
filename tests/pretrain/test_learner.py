"""`pretrain=student` teaches a model of any architecture, and what comes out plays and learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from pretrain.learner import of_student
from sage.config.load import load
from sage.errors import ConfigError, ModelError
from sage.launch.execute import execute
from tests.tiny_models import save_llama

GAMES = ["env.games=generated", "env.generated.train=4", "env.generated.valid_unseen=2", "tracking=none"]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_llama(tmp_path / "llama")


def taught(folder: Path, output: Path, *words: str) -> list[str]:
    return [
        *("task=pretrain", "pretrain=student", "student=hub", f"student.path={folder}"),
        *(f"pretrain.output={output}", "pretrain.tokens=20000", "pretrain.batch_tokens=6000"),
        *("prompt.style=short", "pretrain.max_tokens=8000", *GAMES, *words),
    ]


def test_a_model_of_ones_own_is_taught_and_the_result_is_a_model_of_ones_own(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))
    output = tmp_path / "taught"
    outcome = execute(load(taught(llama, output, "pretrain.save_every=10000")))
    assert outcome.state == "done", outcome.reason
    before = AutoModelForCausalLM.from_pretrained(llama)
    after = AutoModelForCausalLM.from_pretrained(output)
    assert type(after) is LlamaForCausalLM
    assert after.config.hidden_size == 24
    assert {p.dtype for p in after.parameters()} == {torch.float32}
    weights = [model.model.layers[0].mlp.up_proj.weight for model in (before, after)]
    assert not torch.equal(*weights)
    assert (output / "chat_template.jinja").read_text() == (llama / "chat_template.jinja").read_text()
    assert list((output / "checkpoints").iterdir())
    # It is the start of another stage, and a student and a teacher of a run.
    again = execute(load(taught(output, tmp_path / "twice", "seed=1")))
    assert again.state == "done", again.reason
    line = [
        *("method=opd", f"student.path={output}", "student=hub", f"teacher.path={tmp_path / 'twice'}"),
        *("teacher=hub", "prompt.style=short", "trainer.steps=1", "trainer.tasks_per_step=1", *GAMES),
        *("env.turn_budget=2", "rollout.max_new_tokens=8", "evaluation.before=false"),
        *("evaluation.splits=[valid_unseen]", "evaluation.limit=1", f"launch.runs_dir={tmp_path / 'runs'}"),
    ]
    run = execute(load(line))
    assert run.state == "done", run.reason


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("student.dtype=float16", "float16 cannot be trained"),
        ("+student.model_kwargs.quantization_config={load_in_8bit:true}", "quantized ones cannot learn"),
        ("student=hub_lora", "all weights and no adapters"),
        ("pretrain.max_tokens=8193", "more than the 8192 tokens that .* reaches"),
    ],
)
def test_what_cannot_learn_is_refused_before_anything_is_written(
    llama: Path, tmp_path: Path, word: str, sentence: str
) -> None:
    words = taught(llama, tmp_path / "taught", word)
    if word.startswith("student="):
        words.remove("student=hub")
    with pytest.raises((ConfigError, ModelError), match=sentence):
        execute(load(words))
    assert not (tmp_path / "taught").exists()


def test_a_setting_that_would_change_nothing_is_refused(llama: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.layers=3 would change nothing"):
        load(taught(llama, llama / "taught", "pretrain.layers=3"))
    with pytest.raises(ConfigError, match=r"pretrain\.start=shape makes a model, and pretrain\.hidden"):
        load(["task=pretrain", "pretrain.hidden=null"])


def test_the_learner_holds_the_files_weights_in_float32(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    model.save_pretrained(llama)
    student = load(taught(llama, llama / "taught")).student
    learner = of_student(student, 8192)
    assert learner.half  # student=hub plays in bfloat16
    for (name, held), (_, file) in zip(
        learner.lm.model.named_parameters(), model.named_parameters(), strict=True
    ):
        assert held.dtype == torch.float32, name
        assert torch.equal(held, file.float()), name

"""Adapters in place of weights: the student begins as it was, the same objective moves them, and what is
saved is an ordinary model and an ordinary adapter."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sage.config.load import load
from sage.config.loading import LoraSettings
from sage.errors import ModelError
from sage.launch.execute import execute
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.models.lora import add_adapters, merged, relative_change
from sage.records.recorder import Recorder, StepReport
from sage.records.tables import read
from sage.records.trouble import still_warning
from sage.training import checkpoint
from tests.tiny_models import tiny_lm

pytest.importorskip("peft")

SETTINGS = LoraSettings(rank=4, alpha=8, targets=["q_proj", "v_proj", "down_proj"])
SMALL = (
    *("env.games=generated", "env.generated.train=6", "env.generated.valid_seen=2"),
    *("env.generated.valid_unseen=2", "env.turn_budget=3", "trainer.tasks_per_step=2"),
    *("trainer.warmup_steps=0", "evaluation.limit=1", "evaluation.before=false", "evaluation.after=false"),
    *("tracking=none", "speed.threads=1", "speed.checkpoint_every=1", "intervention=always"),
    "student.lora={rank: 4, alpha: 8, targets: [q_proj, v_proj, down_proj]}",
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))


def adapted(seed: int = 0) -> LanguageModel:
    lm = tiny_lm(1)
    add_adapters(lm, SETTINGS, seed=seed)
    return lm


def moved(lm: LanguageModel) -> LanguageModel:
    """Adapters that are not zero any more."""
    generator = torch.Generator().manual_seed(5)
    for name, p in lm.model.named_parameters():
        if "lora_B" in name:
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return lm


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(40)[None]).logits[0]


def test_the_student_begins_as_it_was_and_only_the_adapters_learn() -> None:
    plain, lm = tiny_lm(1), adapted()
    assert torch.equal(logits(plain.model), logits(lm.model))
    learning = [name for name, p in lm.model.named_parameters() if p.requires_grad]
    assert len(learning) == 2 * 3 * 2, "A and B, three layers in each of two blocks"
    assert all(".lora_" in name for name in learning)
    one, same, other = (
        {n: p for n, p in adapted(seed).model.named_parameters() if "lora_A" in n} for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_the_merged_weights_are_the_model_and_the_relative_change_is_that_of_the_weights() -> None:
    lm, plain = moved(adapted()), tiny_lm(1).model
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    plain.load_state_dict(merged(lm.model))
    torch.testing.assert_close(logits(plain), logits(lm.model), rtol=1e-4, atol=1e-5)
    after, hit = plain.state_dict(), [n for n in before if any(t in n for t in SETTINGS.targets)]
    change = sum(float((after[n] - before[n]).double().norm() ** 2) for n in hit) ** 0.5
    whole = sum(float(before[n].double().norm() ** 2) for n in hit) ** 0.5
    assert relative_change(lm.model) == pytest.approx(change / whole, rel=1e-5)
    assert relative_change(adapted().model) == 0


def test_a_checkpoint_holds_an_ordinary_model_and_an_adapter_and_both_load(tmp_path: Path) -> None:
    base = tiny_lm(1)
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    settings = load([]).student.model_copy(update={"path": str(tmp_path / "base")})
    lm = load_model(settings)
    add_adapters(lm, SETTINGS, seed=0)
    moved(lm)
    folder = checkpoint.save(tmp_path / "run" / "checkpoints", 1, lm, {"masters": [None] * 12})
    names = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert names["base_model_name_or_path"] == str(tmp_path / "base")
    for path in ("student", "adapter"):
        again = load_model(settings.model_copy(update={"path": str(folder / path)}))
        torch.testing.assert_close(logits(again.model), logits(lm.model), rtol=1e-4, atol=1e-5)
    fresh = replace(lm, model=copy.deepcopy(lm.model))
    for name, p in fresh.model.named_parameters():
        if ".lora_" in name:
            p.data.zero_()
    checkpoint.load(folder, fresh)
    assert torch.equal(logits(fresh.model), logits(lm.model)), "bit for bit"


def test_a_run_trains_adapters_and_a_resumed_one_ends_bit_for_bit_where_a_whole_one_does() -> None:
    how = [*SMALL, "trainer.learning_rate=1e-3"]
    whole = execute(load([*how, "trainer.steps=3", "launch.runs_dir=whole"]))
    assert whole.state == "done", whole.reason
    steps = read(whole.folder, "steps").to_pylist()
    assert steps[-1]["relative_weight_change"] > 1e-4
    newest = checkpoint.latest(whole.folder / "checkpoints")
    assert newest is not None
    assert {"student", "adapter", "trainer.pt"} <= {path.name for path in newest.iterdir()}

    config = load([*how, "trainer.steps=3"])
    real = Recorder.stepped

    def stop_at_the_third(self: Recorder, report: StepReport) -> None:
        if report.step == 3:
            raise RuntimeError("stopped here")
        real(self, report)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "stepped", stop_at_the_third)
        assert execute(config).state == "failed"
    resumed = execute(config)
    assert resumed.state == "done", resumed.reason
    ends = [checkpoint.latest(run.folder / "checkpoints") for run in (whole, resumed)]
    files = [(end / "adapter" / "adapter_model.safetensors").read_bytes() for end in ends]
    assert files[0] == files[1]


def test_adapters_that_do_not_move_are_warned_of_once() -> None:
    warning = still_warning(10, 8e-6, 1e-6)
    assert "have changed the weights by 8.0e-06 of their norm" in warning
    assert "raise trainer.learning_rate (now 1e-06" in warning
    assert still_warning(10, 2e-5, 1e-4) == still_warning(9, 0.0, 1e-6) == still_warning(10, None, 1) == ""


def test_targets_that_fit_no_layer_are_refused_with_those_that_would() -> None:
    wrong = SETTINGS.model_copy(update={"targets": ["c_attn"]})
    with pytest.raises(ModelError, match=r"targets=\['c_attn'\] fits no layer .* it has down_proj"):
        add_adapters(tiny_lm(1), wrong, seed=0)
    everything = SETTINGS.model_copy(update={"targets": "all-linear"})
    lm = tiny_lm(1)
    add_adapters(lm, everything, seed=0)
    assert sum(p.requires_grad for p in lm.model.parameters()) == 2 * 7 * 2


def test_a_student_on_the_hub_with_adapters_brings_a_rate_that_moves_them() -> None:
    config = load(["student=hub_lora"])
    assert config.student.lora == LoraSettings(rank=16, alpha=32, targets="all-linear")
    assert config.trainer.learning_rate == 1e-4
    assert load(["student=hub"]).student.lora is None

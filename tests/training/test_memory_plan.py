"""Memory is planned from shapes: the parts are those of real models, and what is chosen fits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, Qwen3Config

from sage.check.command import check
from sage.config.load import load
from sage.config.loading import LoraSettings
from sage.errors import ModelError
from sage.policy.decoding.static import StaticEngine
from sage.policy.models.load import LanguageModel
from sage.policy.models.lora import adapter_parameters, add_adapters
from sage.policy.models.shape import Shape, shape_of
from sage.training.memory import Need, fitted, loss_chunk, need_of, plan
from sage.training.optimizer import StudentOptimizer
from sage.training.setup import _shape
from tests.tiny_models import tiny_lm

GIB = 2**30
NEED = Need(8_000, 800, 3_000, 64, 64, 8, query=1_500, judge_batch=64)


def qwen(width: int, feed_forward: int, layers: int, heads: int, tied: bool = True) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=151_936, hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=8, head_dim=128, tie_word_embeddings=tied,
    )  # fmt: skip


@pytest.fixture(scope="module")
def student() -> Shape:
    """Qwen3-1.7B."""
    return shape_of(qwen(2048, 6144, 28, 16), 2)


@pytest.fixture(scope="module")
def teacher() -> Shape:
    """Qwen3-8B."""
    return shape_of(qwen(4096, 12_288, 36, 32, tied=False), 2)


def test_a_shape_is_that_of_the_published_model(student: Shape, teacher: Shape) -> None:
    assert student.parameters == pytest.approx(1.72e9, rel=0.01)
    assert teacher.parameters == pytest.approx(8.19e9, rel=0.01)
    assert student.cached == 114_688  # measured on a card: 114,688 bytes a token
    small = LlamaConfig(vocab_size=100, hidden_size=16, intermediate_size=32, num_attention_heads=4)
    assert shape_of(small, 4).kv_heads == 4


@pytest.mark.parametrize(("tokens", "measured_gib"), [(4_096, 15.5), (8_192, 27.8), (16_384, 52.3)])
def test_activations_are_what_was_measured_on_a_card(
    student: Shape, tokens: int, measured_gib: float
) -> None:
    """Forward and backward of one sequence, Qwen3-1.7B in bfloat16, peak on an H100 (November 2026)."""
    assert (student.weights + student.activations(tokens)) / GIB == pytest.approx(measured_gib, rel=0.1)
    assert student.activations(tokens, checkpointed=True) < 0.1 * student.activations(tokens)


def test_activations_are_what_a_small_model_keeps() -> None:
    """The bytes that torch's autograd saves in the layers of a real model, counted once each."""
    lm = tiny_lm(0)
    shape = shape_of(lm.model.config, 4)
    saved: dict[int, int] = {}
    mine = {p.untyped_storage().data_ptr() for p in lm.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        store = tensor.untyped_storage()
        if store.data_ptr() not in mine and tensor.is_floating_point():
            saved[store.data_ptr()] = store.nbytes()
        return tensor

    ids = torch.randint(5, 200, (1, 512))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = lm.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    assert out.requires_grad
    assert shape.activations(512) == pytest.approx(sum(saved.values()), rel=0.2)


def test_keys_and_values_are_what_the_engine_allocates() -> None:
    lm = tiny_lm(0)
    engine = StaticEngine(lm, 3, room=1_000)
    engine.extend(slice(0, 1), [[5, 6, 7]], [1])
    layers = engine._layers
    allocated = sum(t.numel() * t.element_size() for t in (*layers._keys, *layers._values))
    assert allocated == pytest.approx(3 * 1_000 * shape_of(lm.model.config, 4).cached, rel=0.07)


def test_what_is_chosen_fits_and_one_more_does_not(student: Shape, teacher: Shape) -> None:
    found = fitted(student, teacher, NEED, 80 * GIB)
    assert found.fits
    assert 1 < found.slots < 64
    assert not plan(student, teacher, replace(found.need, slots=found.slots + 1), 80 * GIB).fits
    assert not plan(student, teacher, replace(found.need, micro_batch=found.micro_batch + 1), 80 * GIB).fits
    assert fitted(student, teacher, replace(NEED, slots=5, micro_batch=1), 80 * GIB).slots == 5
    everything = sum(found.always.values()) + max(sum(phase.values()) for phase in found.phases.values())
    assert everything == found.peak


def test_a_pair_that_does_not_fit_says_so(student: Shape, teacher: Shape) -> None:
    found = fitted(student, teacher, NEED, 24 * GIB)
    assert not found.fits
    assert (found.slots, found.micro_batch) == (1, 1)
    assert "DOES NOT FIT" in found.summary()
    alone = fitted(student, None, NEED, 24 * GIB)  # only played with
    assert alone.fits
    assert alone.slots > 10


def test_episodes_are_planned_with_the_games_own_tokens() -> None:
    from sage.policy.context import SplitContext

    config = load(["env.games=generated", "rollout.max_context=4000"])
    assert need_of(config, []).episode == 4_000
    seen = SplitContext("train", 4_000, opening=300, turn=40.0, longest=900, games=3)
    assert need_of(config, [seen]).episode == 300 + config.env.turn_budget * 40
    assert need_of(config, [replace(seen, turn=400.0)]).episode == 4_000


def test_the_page_plans_for_a_card_that_is_not_here_from_a_config_alone(tmp_path: Path) -> None:
    for name, config in (("s", qwen(1024, 3072, 28, 16)), ("t", qwen(4096, 12_288, 36, 32, tied=False))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    line = ["student=hub", "teacher=hub", f"student.path={tmp_path}/s", f"teacher.path={tmp_path}/t"]
    line += ["env.games=generated", "rollout.max_context=8000", "speed.slots=64", "teacher.dtype=bfloat16"]
    said: list[str] = []
    page = check(load(line), said.append, card_gib=80)
    text = " ".join(" ".join(said).split())
    assert page.exit_code == 0
    assert "episodes of 8,000 tokens side by side" in text
    assert "asked for: 64 and 1" in text
    assert "were not counted" in text
    small = check(load(line), said.append, card_gib=24)
    assert small.exit_code == 2


@pytest.mark.parametrize(
    ("gib", "compiled", "tokens"),
    [
        (80, True, 1_130),
        (80, False, 512),
        (139, True, 1_964),
        (200, True, 2_048),
        (24, True, 512),
        (1, True, 70),
    ],
)
def test_a_chunk_of_the_loss_takes_a_small_share_of_the_memory(
    student: Shape, gib: int, compiled: bool, tokens: int
) -> None:
    """80 GiB / 50 = 1.72e9 bytes, at 10 bytes for each of 151,936 logits of a token: 1,130 tokens."""
    assert loss_chunk(student.vocabulary, gib * GIB, compiled=compiled) == tokens
    assert loss_chunk(100, gib * GIB, compiled=compiled) == 2_048
    assert loss_chunk(student.vocabulary, 0, compiled=compiled) == 1


def test_the_plan_counts_the_chunk_that_the_run_takes(student: Shape, teacher: Shape) -> None:
    found = fitted(student, teacher, NEED, 80 * GIB)
    assert found.need.chunk == 1_130
    assert found.phases["student"]["loss"] == 10 * 1_130 * 151_936
    asked = plan(student, teacher, replace(NEED, chunk=100, compiled=False), 80 * GIB)
    assert asked.need.chunk == 100
    assert asked.phases["student"]["loss"] == 28 * 100 * 151_936
    config = load(["env.games=generated", "speed.loss_chunk=33", "speed.compile_loss=false"])
    need = need_of(config, [])
    assert (need.chunk, need.compiled) == (33, False)


def test_layers_are_computed_again_only_where_an_episode_would_not_fit(
    student: Shape, teacher: Shape
) -> None:
    auto = replace(NEED, checkpointed="auto", packed=True)
    short = fitted(student, teacher, auto, 80 * GIB)
    assert short.need.checkpointed is False
    assert "activations of 8,000 packed tokens" in short.phases["student"]
    long = replace(auto, episode=32_000, micro_batch=2)
    found = fitted(student, teacher, long, 80 * GIB)
    assert found.need.checkpointed is True
    assert found.fits
    assert "layers computed again" in found.summary()
    assert "inputs of the layers of 64,000 packed tokens" in found.phases["student"]
    assert not fitted(student, teacher, replace(long, checkpointed=False), 80 * GIB).fits
    asked = fitted(student, teacher, replace(NEED, checkpointed=True), 80 * GIB)
    assert asked.need.checkpointed is True
    assert asked.micro_batch > short.micro_batch


def test_one_long_episode_computed_again_is_within_what_is_asked(student: Shape) -> None:
    """16,384 tokens of a 1.7B student in at most 20 GiB beside the weights."""
    assert student.activations(16_384, checkpointed=True) < 20 * GIB


def test_a_run_takes_what_its_plan_has_chosen_and_plans_nothing_on_a_cpu(
    student: Shape, teacher: Shape
) -> None:
    from sage.training.batch import match_models
    from sage.training.setup import as_planned, plan_memory

    config = load(["env.games=generated", "speed.micro_batch=8"])
    own = tiny_lm(0)
    assert plan_memory(config, own, match_models(own, tiny_lm(1)), []) is None
    found = fitted(student, teacher, NEED, 80 * GIB)
    speed = as_planned(config, found).speed
    assert (speed.slots, speed.micro_batch, speed.judge_batch) == (found.slots, found.micro_batch, 64)
    assert speed.loss_chunk == found.need.chunk > 0
    assert speed.gradient_checkpointing is False
    assert as_planned(config, found).digest_fields() == config.digest_fields()


def adapted(dtype: torch.dtype) -> LanguageModel:
    lm = tiny_lm(0)
    lm.model.to(dtype)
    add_adapters(lm, LoraSettings(rank=4, alpha=8.0, targets="all-linear"), seed=0)
    return lm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_student_with_adapters_is_planned_as_what_its_training_allocates(dtype: torch.dtype) -> None:
    lm = adapted(dtype)
    shape = _shape(lm)
    found = plan(shape, shape_of(lm.model.config, dtype.itemsize), NEED, GIB)
    optimizer = StudentOptimizer(lm.model, load([]).trainer)
    ids = torch.randint(5, 200, (1, 64))
    lm.model(input_ids=ids, labels=ids).loss.backward()

    def held(tensors: Iterable[torch.Tensor]) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    assert held(lm.model.parameters()) == found.always["student"]
    gradient = held(p.grad for p in lm.model.parameters() if p.grad is not None)
    assert gradient == found.phases["student"]["gradient"] == found.phases["step"]["gradient"]
    optimizer.step()
    states = optimizer.optimizer.state.values()
    assert held(one[name] for one in states for name in ("exp_avg", "exp_avg_sq")) == found.always["moments"]
    own = [m for m, p in zip(optimizer.masters, optimizer.parameters, strict=True) if m is not p]
    assert held(own) == found.always.get("float32 masters", 0)
    assert found.always["moments"] < 0.5 * 8 * shape.parameters  # those of the frozen weights are not there


def test_adapters_are_counted_without_the_weights() -> None:
    lm = adapted(torch.float32)
    settings = LoraSettings(rank=4, alpha=8.0, targets="all-linear")
    assert adapter_parameters(tiny_lm(0).model.config, "tiny", settings) == _shape(lm).trained
    with pytest.raises(ModelError, match="fits no layer of 'tiny'"):
        adapter_parameters(tiny_lm(0).model.config, "tiny", settings.model_copy(update={"targets": ["x"]}))


def test_the_page_counts_the_moments_of_adapters_alone(tmp_path: Path) -> None:
    for name, config in (("s", qwen(1024, 3072, 28, 16)), ("t", qwen(1024, 3072, 28, 16))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    line = ["teacher=hub", f"student.path={tmp_path}/s", f"teacher.path={tmp_path}/t"]
    line += ["env.games=generated", "rollout.max_context=8000", "teacher.dtype=bfloat16"]
    said: dict[str, str] = {}
    for student in ("hub", "hub_lora"):
        lines: list[str] = []
        check(load([f"student={student}", *line]), lines.append, card_gib=80)
        said[student] = " ".join(" ".join(lines).split())
    assert "moments 4.4 GiB" in said["hub"]
    assert "moments 0.1 GiB" in said["hub_lora"]  # 10.1 million weights of rank 16
    assert "optimizer 0.1 GiB" in said["hub_lora"] or "optimizer 77" in said["hub_lora"]

"""bfloat16 weights behind float32 masters: the dither by hand, in the mean, over steps, shards and resume."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sage.config.load import load
from sage.config.schema import TrainerSettings
from sage.policy.models.load import LanguageModel
from sage.training import checkpoint
from sage.training.optimizer import StudentOptimizer, WeightChange
from sage.training.rounding import dithered, key_of, thresholds
from tests.tiny_models import tiny_lm


def trainer(rounding: str, rate: float = 1e-6) -> TrainerSettings:
    choice = [f"trainer.rounding={rounding}", f"trainer.learning_rate={rate}", "trainer.warmup_steps=0"]
    return load(choice).trainer


def neighbours(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bfloat16 numbers next to each float32 one, towards zero and away from it, as float64."""
    bits = weights.astype(np.float32).view(np.uint32)
    low = bits & np.uint32(0xFFFF0000)
    return low.view(np.float32).astype(float), (low + np.uint32(0x10000)).view(np.float32).astype(float)


def test_thresholds_are_splitmix64_of_a_counter() -> None:
    """Against the algorithm in Python's own integers."""
    key, mask = key_of(7, "model.embed.weight"), (1 << 64) - 1

    def word(counter: int) -> int:
        x = (key + counter * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    expected = [(word(1 + i // 4) >> (16 * (i % 4))) & 0xFFFF for i in range(40)]
    assert thresholds(key, 0, 40).tolist() == expected
    assert thresholds(key, 13, 9).tolist() == expected[13:22]
    assert len({key_of(seed, name) for seed in (0, 1) for name in ("a", "b")}) == 4


def test_thresholds_are_uniform_and_neighbours_have_nothing_to_do_with_each_other() -> None:
    drawn = thresholds(key_of(0, "w"), 0, 200_000).numpy()
    assert stats.kstest(drawn / 65536, "uniform").pvalue > 1e-3
    for lag in (1, 4, 5):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 4 / np.sqrt(len(drawn))


def test_what_plays_is_a_neighbour_and_equals_the_master_in_the_mean() -> None:
    draw = np.random.default_rng(1)
    weights = (draw.normal(size=200) * 10.0 ** draw.uniform(-6, 2, 200)).astype(np.float32)
    low, high = neighbours(weights)
    masters = torch.from_numpy(weights)
    played = np.stack([dithered(masters, key_of(seed, "w")).double().numpy() for seed in range(4000)])
    assert ((played == low) | (played == high)).all()
    share = (weights - low) / (high - low)
    spread = np.sqrt(share * (1 - share) / len(played)).clip(1e-3)
    z = ((played == high).mean(axis=0) - share) / spread
    assert np.abs(z).max() < 5
    assert abs(z.mean()) < 4 / np.sqrt(len(z))


def test_weights_that_bfloat16_can_hold_stay_and_nothing_overflows() -> None:
    special = torch.tensor([0.0, -0.0, 1.0, -3.5, 1e-40, float("inf"), float("-inf"), float("nan")])
    exact = torch.cat([special, torch.randn(1000)]).bfloat16()
    for seed in range(5):
        made = dithered(exact.float(), key_of(seed, "w"))
        assert torch.equal(made.view(torch.int16)[:7], exact.view(torch.int16)[:7])
        assert bool(made[7].isnan())
        assert torch.equal(made[8:], exact[8:])
    largest = torch.full((100,), torch.finfo(torch.float32).max * 0.998)
    assert bool(dithered(largest, key_of(0, "w")).isfinite().all())


def test_a_weight_that_moves_steadily_flips_once_for_each_step_of_bfloat16() -> None:
    start = torch.linspace(-2, 2, 401)
    path = torch.stack([dithered(start + 1e-4 * n, key_of(0, "w")).float() for n in range(80)])
    assert bool((path.diff(dim=0) >= 0).all())  # never back
    assert bool((path.diff(dim=0) > 0).any())


def test_parts_of_a_weight_are_rounded_as_the_whole_is() -> None:
    whole = torch.randn(37, 5)
    made = dithered(whole, key_of(3, "w"))
    parts = [dithered(rows, key_of(3, "w"), 5 * start) for start, rows in ((0, whole[:11]), (11, whole[11:]))]
    assert torch.equal(torch.cat(parts), made)


def stepped(
    rounding: str, steps: int = 40, seed: int = 0
) -> tuple[nn.Linear, StudentOptimizer, WeightChange]:
    torch.manual_seed(0)
    model = nn.Linear(64, 64).bfloat16()
    optimizer, change = StudentOptimizer(model, trainer(rounding), seed=seed), WeightChange(model)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=draw).sign().bfloat16() + 2
        optimizer.step()
    return model, optimizer, change


def test_a_dither_plays_what_the_masters_have_learnt_in_the_mean_and_the_nearest_does_not() -> None:
    progress = {}
    for rounding in ("nearest", "dither"):
        model, optimizer, change = stepped(rounding)
        torch.manual_seed(0)
        start = nn.Linear(64, 64).bfloat16().weight.detach().double()
        moved = (model.weight.detach().double() - start).mean()
        progress[rounding] = float(moved / (optimizer.masters[0].detach().double() - start).mean())
        assert change.of_masters(optimizer.masters) > 0
    assert progress["nearest"] < 0.4
    assert progress["dither"] == pytest.approx(1, abs=0.15)


def test_both_movements_are_told_apart_and_agree_in_float32() -> None:
    _, optimizer, change = stepped("nearest", steps=1)
    assert change.value() < 0.5 * change.of_masters(optimizer.masters)
    model = nn.Linear(3, 3)
    optimizer, change = StudentOptimizer(model, trainer("dither", 1e-2)), WeightChange(model)
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    assert not optimizer.rounds
    assert change.of_masters(optimizer.masters) == pytest.approx(change.value(), rel=1e-6)


def test_the_run_s_seed_and_the_name_of_the_weight_draw_the_thresholds() -> None:
    (a, _, _), (again, _, _), (other, _, _) = stepped("dither"), stepped("dither"), stepped("dither", seed=1)
    assert torch.equal(a.weight, again.weight)
    assert not torch.equal(a.weight, other.weight)


def test_a_float16_student_is_not_dithered() -> None:
    with pytest.raises(ValueError, match=r"set student.dtype=bfloat16"):
        StudentOptimizer(nn.Linear(2, 2).half(), trainer("dither"))


# --- checkpoints


def half_student() -> LanguageModel:
    return tiny_lm(1, dtype=torch.bfloat16)


@pytest.mark.parametrize("rounding", ["nearest", "dither"])
def test_a_checkpoint_holds_the_masters_and_a_resumed_run_plays_the_same_bits(
    tmp_path: Path, rounding: str
) -> None:
    def step(lm: LanguageModel, optimizer: StudentOptimizer, number: int) -> None:
        draw = torch.Generator().manual_seed(number)
        for p in lm.model.parameters():
            p.grad = torch.randn(p.shape, generator=draw).to(p.dtype)
        optimizer.step()

    straight = half_student()
    optimizer = StudentOptimizer(straight.model, trainer(rounding, 1e-4), seed=3)
    for number in range(3):
        step(straight, optimizer, number)
    path = checkpoint.save(tmp_path, 3, straight, copy.deepcopy(optimizer.state_dict()))

    # the model directory: float32, whatever plays
    kind = type(straight.model)
    saved = kind.from_pretrained(path / "student")
    assert saved.dtype == torch.float32
    assert saved.config.tie_word_embeddings
    for p, master in zip(saved.parameters(), optimizer.masters, strict=True):
        assert torch.equal(p, master)
    assert kind.from_pretrained(path / "student", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert "masters" not in torch.load(path / "trainer.pt", weights_only=True)

    other = half_student()
    again = StudentOptimizer(other.model, trainer(rounding, 1e-4), seed=3)
    again.load_state_dict(checkpoint.load(path, other))
    for mine, theirs in zip(other.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for lm, opt in ((straight, optimizer), (other, again)):
        step(lm, opt, 9)
    for mine, theirs in zip(again.masters, optimizer.masters, strict=True):
        assert torch.equal(mine, theirs)


def test_a_checkpoint_of_the_older_format_is_still_resumed(tmp_path: Path) -> None:
    student = half_student()
    optimizer = StudentOptimizer(student.model, trainer("nearest"))
    with torch.no_grad():
        optimizer.masters[0].add_(1e-5)
    path = checkpoint.save(tmp_path, 1, student, {})
    torch.save({"format": 2, "step": 1, **optimizer.state_dict()}, path / "trainer.pt")
    other = half_student()
    again = StudentOptimizer(other.model, trainer("nearest"))
    again.load_state_dict(checkpoint.load(path, other))
    assert torch.equal(again.masters[0], optimizer.masters[0])

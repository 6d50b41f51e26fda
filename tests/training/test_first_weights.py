"""The weights of the start, from main memory and from a file: the same, and the file is nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sage.training import first_weights
from sage.training.first_weights import FirstWeights
from sage.training.optimizer import StudentOptimizer, WeightChange
from tests.tiny_models import tiny_lm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_gives_back_every_weight_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(first_weights, "IN_MEMORY", 0)
    weights = [torch.randn(5, 7).to(dtype), torch.randn(11).to(dtype), torch.randn(3, 4).to(dtype).T]
    before = [w.clone() for w in weights]
    kept = FirstWeights(weights, tmp_path / "checkpoints")
    assert kept._file is not None
    assert kept._kept == []
    for w in weights:
        w.zero_()
    for _ in range(2):
        for was, found in zip(before, kept, strict=True):
            assert found.dtype == dtype
            assert torch.equal(was, found)
    assert list((tmp_path / "checkpoints").iterdir()) == []  # it has no name


def test_small_ones_and_those_without_a_folder_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [torch.randn(5, 7)]
    assert FirstWeights(weights, tmp_path)._file is None
    monkeypatch.setattr(first_weights, "IN_MEMORY", 0)
    assert FirstWeights(weights)._file is None
    (tmp_path / "taken").write_text("a file where a folder is to be")
    no_room = FirstWeights(weights, tmp_path / "taken")
    assert torch.equal(next(iter(no_room)), weights[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_how_far_weights_have_moved_is_bit_equal_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    from sage.config.load import load

    lm = tiny_lm(0)
    lm.model.to(dtype)
    in_memory = WeightChange(lm.model)
    monkeypatch.setattr(first_weights, "IN_MEMORY", 0)
    from_file = WeightChange(lm.model, tmp_path)
    assert from_file._start._file is not None
    optimizer = StudentOptimizer(lm.model, load(["trainer.learning_rate=0.01"]).trainer)
    ids = torch.randint(5, 200, (1, 16))
    lm.model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert in_memory.start_norm == from_file.start_norm
    assert in_memory.value() == from_file.value() > 0
    masters = in_memory.of_masters(optimizer.masters)
    assert masters == from_file.of_masters(optimizer.masters) > 0

"""The size that the page gives of a checkpoint, against the files of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sage.check.checkpoint import checkpoint_line, size_of_loaded
from sage.config.load import load
from sage.training import checkpoint
from sage.training.content import content_of
from sage.training.optimizer import StudentOptimizer
from tests.tiny_models import tiny_lm


@pytest.mark.parametrize("kind", ["full", "weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_is_as_large_as_the_page_says(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    config = load([f"trainer.checkpoint={kind}"])
    lm = tiny_lm(1, hidden=256, rows=2000)
    lm.model.to(dtype)
    optimizer = StudentOptimizer(lm.model, config.trainer)
    for p in lm.model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    path = checkpoint.write(tmp_path, content_of(1, lm, optimizer.state_dict()), config.trainer.checkpoint)
    held = sum(p.stat().st_size for p in path.rglob("*") if p.suffix in (".pt", ".safetensors"))
    said = size_of_loaded(config, lm)
    assert held == pytest.approx(said.whole, rel=0.02)
    assert said.whole > (8e6 if kind == "full" else 2e6)


def test_the_page_says_what_the_checkpoints_of_a_large_student_take() -> None:
    class Student:
        """1.72 billion weights that take no memory here."""

        model = torch.nn.Module()

    Student.model.weight = torch.nn.Parameter(
        torch.empty(1_720_000_000, device="meta", dtype=torch.bfloat16)
    )
    full = load([])
    text = checkpoint_line(full, size_of_loaded(full, Student())).text  # type: ignore[arg-type]
    assert "takes 19.2 GiB (student 6.4 GiB, optimizer 12.8 GiB)" in text
    assert "57.7 GiB on the disk; it is written from a copy of 19.2 GiB in main memory" in text
    alone = load(["trainer.checkpoint=weights", "speed.checkpoint_background=false"])
    text = checkpoint_line(alone, size_of_loaded(alone, Student())).text  # type: ignore[arg-type]
    assert "takes 6.4 GiB (student 6.4 GiB; weights alone: a run that is killed starts over)" in text
    assert "the training waits" in text

"""How the models are read in a step's passes changes no loss and no gradient, and what it costs is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sage.config.load import load
from sage.objective.chunked import Chunking
from sage.objective.compiled import Compiled
from sage.objective.elementwise import at_chunk
from sage.training.gradient import BatchLoss
from sage.training.passes import PLAIN, Passes, passes_of
from tests.tiny_models import tiny_lm
from tests.training.test_gradient import make_batch, models, objective, run


def differentiated(passes: Passes) -> tuple[BatchLoss, torch.Tensor]:
    """Loss and gradient of a batch of unlike episodes."""
    return run(replace(models(), passes=passes), objective(), make_batch(), micro_batch=3)


def assert_same(got: tuple[BatchLoss, torch.Tensor], want: tuple[BatchLoss, torch.Tensor]) -> None:
    assert got[0].loss == pytest.approx(want[0].loss, rel=1e-5)
    assert float(want[1].norm()) > 0
    torch.testing.assert_close(got[1], want[1], rtol=1e-5, atol=1e-5 * float(want[1].abs().max()))


@pytest.mark.parametrize(
    "chunking",
    [Chunking(4), Chunking(1), Chunking(6, Compiled(lambda line: None, rows=6, backend="aot_eager"))],
    ids=["of 4", "of 1", "traced"],
)
def test_chunks_of_any_size_give_the_loss_and_its_gradient(chunking: Chunking) -> None:
    assert_same(differentiated(Passes(chunking)), differentiated(PLAIN))


def test_on_a_cpu_nothing_is_compiled_unless_asked_for() -> None:
    lm, said = tiny_lm(0), []
    plain = passes_of(load([]).speed, lm, 50, said.append)
    assert (plain.chunking.most, plain.chunking.elementwise) == (0, at_chunk)
    asked = passes_of(load(["speed.compile_loss=true", "speed.loss_chunk=9"]).speed, lm, 50, said.append)
    assert asked.chunking.most == 9
    assert isinstance(asked.chunking.elementwise, Compiled)
    assert not said

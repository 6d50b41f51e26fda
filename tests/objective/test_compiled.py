"""The compiled elementwise part of the loss: the plain one's numbers for every divergence, paid for once."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar

import pytest
import torch

from sage.objective.chunked import BY_SIZE, Chunking, Head, Projected, chunked_divergence
from sage.objective.compiled import Compiled
from sage.objective.divergence.anchored import Anchored, Extrapolated
from sage.objective.divergence.base import JSD, Divergence, ForwardKL, ReverseKL
from sage.objective.divergence.estimators import (
    EntropyGated,
    Mixture,
    NegativeLogLikelihood,
    SampledToken,
    TopK,
)

EVERY = [
    ReverseKL(name="reverse_kl"),
    ForwardKL(name="forward_kl"),
    JSD(name="jsd", beta=0.3),
    SampledToken(name="sampled_token", estimator="k3", gradient="loss").sampled_at(0.7, 1.0),
    NegativeLogLikelihood(name="nll"),
    TopK(name="top_k", k=5, kind="forward_kl", beta=0.5),
    Mixture(name="mixture", forward_weight=0.3),
    EntropyGated(name="entropy_gated", tau=1.0, top_k=4),
    Extrapolated(name="extrapolated", strength=1.5, reference="uniform"),
    Anchored(name="anchored", strength=0.5, reference="student"),
]
VOCABULARY = 40


class Counting(Divergence):
    """A divergence of a plug-in, without a slope of its own; how often it is traced or computed is seen."""

    calls: ClassVar[list[int]] = []

    def value(self, student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        Counting.calls.append(1)
        return (student.exp() - teacher.exp()).square().sum(-1)


class Looking(Counting):
    """What cannot be traced: it asks a tensor for its value."""

    def value(self, student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        both = super().value(student, teacher, target)
        return both * 2 if float(both.sum()) > 1e9 else both


def computed(kind: Divergence, chunking: Chunking, tokens: int = 21, dtype: Any = torch.float64) -> list[Any]:
    """Weighted sum, statistics and gradients of one batch, a third of it without a weight."""
    random = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return (2 * torch.randn(*shape, generator=random, dtype=torch.float64)).to(dtype)

    hidden_TD, weight_VD = normal(tokens, 6).requires_grad_(), normal(VOCABULARY, 6).requires_grad_()
    teacher = Projected(normal(tokens, 8), Head(normal(VOCABULARY, 8)))
    target_T = torch.randint(0, VOCABULARY, (tokens,), generator=random)
    weight_T = torch.rand(tokens, generator=random, dtype=torch.float64)
    weight_T[::3] = 0
    weight_T = weight_T.to(torch.promote_types(dtype, torch.float32))
    result = chunked_divergence(
        kind, hidden_TD, Head(weight_VD), teacher, target_T, weight_T,
        vocabulary=VOCABULARY, chunking=chunking,
    )  # fmt: skip
    result.weighted_sum.backward()
    return [
        *(result.weighted_sum.detach(), result.divergence_T, result.student_logprob_T),
        *(result.student_entropy_T, hidden_TD.grad, weight_VD.grad),
    ]


def assert_same(got: list[Any], want: list[Any], share: float) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=share, atol=share * float(b.abs().max()))


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_traced_as_a_whole_every_divergence_has_its_numbers(kind: Divergence) -> None:
    said: list[str] = []
    traced = Chunking(8, Compiled(said.append, backend="aot_eager"))
    assert_same(computed(kind, traced), computed(kind, Chunking(8)), 1e-9)
    assert len(said) == 2  # with a gradient, and for the tokens without a weight
    assert all("was compiled" in line for line in said)


@pytest.mark.parametrize("kind", [EVERY[0], EVERY[2], EVERY[7]], ids=lambda kind: kind.name)
def test_in_16_bits_it_is_the_float64_loss_to_rounding(kind: Divergence) -> None:
    said: list[str] = []
    traced = Chunking(8, Compiled(said.append, backend="aot_eager"))
    got = computed(kind, traced, dtype=torch.bfloat16)
    assert_same(got, computed(kind, BY_SIZE, dtype=torch.bfloat16), 0.01)
    assert "could not" not in " ".join(said)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on a CPU")
@pytest.mark.parametrize(
    "kind",
    [EVERY[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in EVERY[1:])],
    ids=lambda kind: kind.name,
)
def test_compiled_by_inductor_it_has_the_plain_numbers(kind: Divergence) -> None:
    said: list[str] = []
    compiled = Chunking(8, Compiled(said.append))
    want, want32 = computed(kind, BY_SIZE), computed(kind, BY_SIZE, dtype=torch.float32)
    assert_same(computed(kind, compiled, dtype=torch.float32), want32, 1e-5)
    assert_same(computed(kind, compiled, dtype=torch.float32), want, 1e-4)
    assert [line.split(";")[0] for line in said] == [
        f"the loss {kind.name} was compiled (with a gradient)",
        f"the loss {kind.name} was compiled (without a gradient)",
    ]


def test_compiling_is_paid_for_once_whatever_the_number_of_tokens() -> None:
    said: list[str] = []
    work = Compiled(said.append, rows=8, backend="aot_eager")
    kind = Counting(name="counting")
    for tokens in (3, 21, 40, 17):
        computed(kind, Chunking(8, work), tokens)
    assert len(said) == 2
    Counting.calls.clear()
    computed(kind, Chunking(8, work), 30)
    assert not Counting.calls  # compiled code runs, not the Python of the divergence


def test_a_divergence_that_cannot_be_compiled_is_computed_and_said() -> None:
    said: list[str] = []
    work = Compiled(said.append, backend="aot_eager")
    got = computed(Looking(name="looking"), Chunking(8, work))
    assert_same(got, computed(Looking(name="looking"), BY_SIZE), 1e-12)
    assert work.failed
    assert len(said) == 1
    assert "the loss could not be compiled (" in said[0]
    assert "speed.compile_loss=false" in said[0]
    assert len(said[0]) < 400


def test_a_compiler_that_gets_it_wrong_is_not_used() -> None:
    """A backend that returns twice what it should."""

    def wrong(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        return lambda *given: [out * 2 if isinstance(out, torch.Tensor) else out for out in graph(*given)]

    said: list[str] = []
    work = Compiled(said.append, backend=wrong)  # type: ignore[arg-type]
    got = computed(EVERY[0], Chunking(8, work))
    assert_same(got, computed(EVERY[0], BY_SIZE), 1e-12)
    assert "compiled it is off by" in said[0]


def test_too_little_memory_is_no_failure_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Compiled(lambda line: None)

    def full(*given: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Compiled, "_make", full)
    with pytest.raises(torch.OutOfMemoryError):
        computed(EVERY[0], Chunking(8, work))
    assert not work.failed


def test_the_same_model_twice_is_still_exactly_nothing() -> None:
    work = Compiled(lambda line: None, backend="aot_eager")
    head, hidden_TD = Head(torch.randn(VOCABULARY, 6)), torch.randn(9, 6)
    result = chunked_divergence(
        EVERY[0], hidden_TD.clone().requires_grad_(), head, Projected(hidden_TD, head),
        torch.zeros(9, dtype=torch.long), torch.ones(9), vocabulary=VOCABULARY, chunking=Chunking(4, work),
    )  # fmt: skip
    assert result.divergence_T.tolist() == [0.0] * 9

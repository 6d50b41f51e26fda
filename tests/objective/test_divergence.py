"""Divergences: hand-worked numbers, scipy in float64, gradients against dense autograd, chunking."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.objective.chunked import ChunkedResult, Chunking, Head, Projected, chunked_divergence
from sage.objective.divergence.base import JSD, Divergence, ForwardKL, ReverseKL
from tests.chunks import chunks_of

KINDS = [
    ReverseKL(name="reverse_kl"),
    ForwardKL(name="forward_kl"),
    JSD(name="jsd", beta=0.5),
    JSD(name="jsd", beta=0.1),
]


NO_TARGET = torch.zeros(0, dtype=torch.long)
"""These divergences do not look at the sampled tokens."""


def ids(kind: Divergence) -> str:
    return f"{kind.name}-{kind.beta}" if isinstance(kind, JSD) else kind.name


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def scipy_value(kind: Divergence, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The same by scipy's relative entropy; p student, q teacher."""
    if isinstance(kind, ReverseKL):
        return scipy.stats.entropy(p, q, axis=-1)
    if isinstance(kind, ForwardKL):
        return scipy.stats.entropy(q, p, axis=-1)
    mixture = kind.beta * q + (1 - kind.beta) * p
    entropy = scipy.stats.entropy
    return kind.beta * entropy(q, mixture, axis=-1) + (1 - kind.beta) * entropy(p, mixture, axis=-1)


def test_reverse_kl_by_hand() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3)
    value = KINDS[0].value(logs(0.5, 0.5), logs(0.25, 0.75), NO_TARGET)
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-15)


def test_forward_kl_by_hand() -> None:
    # 1/4 ln(1/2) + 3/4 ln(3/2)
    value = KINDS[1].value(logs(0.5, 0.5), logs(0.25, 0.75), NO_TARGET)
    assert value.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), abs=1e-15)


def test_jsd_of_disjoint_distributions_is_ln2() -> None:
    tiny = 1e-300
    value = KINDS[2].value(logs(1 - tiny, tiny), logs(tiny, 1 - tiny), NO_TARGET)
    assert value.item() == pytest.approx(math.log(2), abs=1e-12)


def test_jsd_is_the_square_of_scipys_distance() -> None:
    from scipy.spatial.distance import jensenshannon

    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.3, 0.1])
    value = KINDS[2].value(logs(*p), logs(*q), NO_TARGET)
    assert value.item() == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-14)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=25, deadline=None)
def test_equals_scipy(kind: Divergence, seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    student, teacher = scale * random.normal(size=(2, 5, 17))
    logp, logq = (scipy.special.log_softmax(x, axis=-1) for x in (student, teacher))
    value = kind.value(torch.from_numpy(logp), torch.from_numpy(logq), NO_TARGET).numpy()
    np.testing.assert_allclose(value, scipy_value(kind, np.exp(logp), np.exp(logq)), rtol=1e-9, atol=1e-12)
    assert (value > -1e-12).all()


@pytest.mark.parametrize("kind", KINDS, ids=ids)
@pytest.mark.parametrize("scale", [0.5, 5.0, 60.0])
def test_slope_is_the_derivative_of_the_value(kind: Divergence, scale: float) -> None:
    random = torch.Generator().manual_seed(1)
    student, teacher = scale * torch.randn(2, 6, 23, generator=random, dtype=torch.float64)
    both = student.log_softmax(-1), teacher.log_softmax(-1)
    value_by_hand, slope_by_hand = kind.value_and_slope(*(x.clone() for x in both), NO_TARGET)
    value, slope = Divergence.value_and_slope(kind, *both, NO_TARGET)
    torch.testing.assert_close(value_by_hand, value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope_by_hand, slope, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_equal_distributions_give_exactly_zero(kind: Divergence) -> None:
    logp = (30 * torch.randn(50, 40, generator=torch.Generator().manual_seed(2))).log_softmax(-1)
    assert kind.value(logp.clone(), logp.clone(), NO_TARGET).tolist() == [0.0] * 50
    value, slope = kind.value_and_slope(logp.clone(), logp.clone(), NO_TARGET)
    assert value.abs().max() == 0
    assert slope.abs().max() == 0


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_far_apart_float32_distributions_stay_finite(kind: Divergence) -> None:
    student = torch.tensor([[0.0, 200.0, -200.0]]).log_softmax(-1)
    teacher = torch.tensor([[0.0, -200.0, 200.0]]).log_softmax(-1)
    value, slope = kind.value_and_slope(student, teacher, NO_TARGET)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()


class Case:
    """Hidden states and heads of two models, float64; the padded rows must not matter."""

    def __init__(self, tokens: int = 13, vocabulary: int = 11, *, bias: bool = True) -> None:
        random = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        self.vocabulary = vocabulary
        self.hidden_TD = normal(tokens, 5).requires_grad_()
        self.weight_VD = normal(vocabulary + 3, 5).requires_grad_()
        self.bias_V = normal(vocabulary + 3).requires_grad_() if bias else None
        self.teacher_TE = normal(tokens, 7)
        self.teacher_head = Head(normal(vocabulary + 9, 7), normal(vocabulary + 9))
        self.target_T = torch.randint(0, vocabulary, (tokens,), generator=random)
        self.token_weight_T = torch.rand(tokens, generator=random, dtype=torch.float64)
        self.token_weight_T[::3] = 0

    @property
    def leaves(self) -> list[torch.Tensor]:
        return [x for x in (self.hidden_TD, self.weight_VD, self.bias_V) if x is not None]

    def chunked(self, kind: Divergence, chunk_tokens: int | None, log: bool = True) -> ChunkedResult:
        with chunks_of(chunk_tokens):
            return chunked_divergence(
                kind,
                self.hidden_TD,
                Head(self.weight_VD, self.bias_V),
                Projected(self.teacher_TE, self.teacher_head),
                self.target_T,
                self.token_weight_T,
                vocabulary=self.vocabulary,
                chunking=Chunking(log_unweighted=log),
            )

    def dense(self, kind: Divergence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(weighted sum, divergence per token, student log-probabilities) with everything in one matrix."""
        V = self.vocabulary
        student = self.hidden_TD @ self.weight_VD.T + (0 if self.bias_V is None else self.bias_V)
        teacher = self.teacher_TE @ self.teacher_head.weight_VD.T + self.teacher_head.bias_V
        logp, logq = student[:, :V].log_softmax(-1), teacher[:, :V].log_softmax(-1)
        p, q = logp.exp(), logq.exp()
        if isinstance(kind, ReverseKL):
            value = (p * (logp - logq)).sum(-1)
        elif isinstance(kind, ForwardKL):
            value = (q * (logq - logp)).sum(-1)
        else:
            logm = (kind.beta * q + (1 - kind.beta) * p).log()
            value = kind.beta * (q * (logq - logm)).sum(-1) + (1 - kind.beta) * (p * (logp - logm)).sum(-1)
        return (self.token_weight_T * value).sum(), value, logp


@pytest.mark.parametrize("kind", KINDS, ids=ids)
@pytest.mark.parametrize("chunk_tokens", [1, 4, None])
@pytest.mark.parametrize("bias", [True, False])
def test_chunked_value_and_gradient_equal_dense_autograd(
    kind: Divergence, chunk_tokens: int | None, bias: bool
) -> None:
    case = Case(bias=bias)
    dense_sum, dense_T, logp_TV = case.dense(kind)
    expected = torch.autograd.grad(3.7 * dense_sum, case.leaves)
    result = case.chunked(kind, chunk_tokens)
    got = torch.autograd.grad(3.7 * result.weighted_sum, case.leaves)
    assert result.weighted_sum.item() == pytest.approx(dense_sum.item(), rel=1e-12)
    torch.testing.assert_close(result.divergence_T, dense_T.detach(), rtol=1e-10, atol=1e-12)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    chosen = logp_TV.gather(-1, case.target_T[:, None]).squeeze(-1).detach()
    torch.testing.assert_close(result.student_logprob_T, chosen, rtol=1e-10, atol=1e-12)
    entropy = torch.from_numpy(scipy.stats.entropy(logp_TV.detach().exp().numpy(), axis=-1))
    torch.testing.assert_close(result.student_entropy_T, entropy, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_gradcheck(kind: Divergence) -> None:
    case = Case(tokens=4, vocabulary=5)

    def weighted(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        case.hidden_TD, case.weight_VD, case.bias_V = hidden, weight, bias
        return case.chunked(kind, 3).weighted_sum

    assert torch.autograd.gradcheck(weighted, tuple(case.leaves))


def test_unweighted_tokens_are_computed_only_on_request() -> None:
    case = Case()
    full, lean = (case.chunked(KINDS[0], 4, log) for log in (True, False))
    assert full.weighted_sum.item() == pytest.approx(lean.weighted_sum.item(), rel=1e-14)
    skipped = case.token_weight_T == 0
    assert torch.isfinite(full.divergence_T).all()
    assert lean.divergence_T[skipped].isnan().all()
    assert lean.student_logprob_T[skipped].isnan().all()
    torch.testing.assert_close(lean.divergence_T[~skipped], full.divergence_T[~skipped])


def test_gradient_flows_only_where_it_is_asked_for() -> None:
    case = Case()
    case.weight_VD.requires_grad_(False)
    case.bias_V.requires_grad_(False)
    expected = torch.autograd.grad(case.dense(KINDS[0])[0], case.hidden_TD)[0]
    case.chunked(KINDS[0], 4).weighted_sum.backward()
    torch.testing.assert_close(case.hidden_TD.grad, expected)
    assert case.weight_VD.grad is None


def test_no_logits_of_more_than_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = Head.product

    def watched(self: Head, hidden_CD: torch.Tensor, vocabulary: int) -> torch.Tensor:
        seen.append(len(hidden_CD))
        return real(self, hidden_CD, vocabulary)

    monkeypatch.setattr(Head, "product", watched)
    case = Case(tokens=20)
    case.chunked(KINDS[0], 4).weighted_sum.backward()
    assert max(seen) == 4
    supervised = int((case.token_weight_T != 0).sum())
    assert sum(seen) == 2 * 20
    seen.clear()
    case.chunked(KINDS[0], 4, log=False)
    assert sum(seen) == 2 * supervised


def test_half_precision_logits_are_widened() -> None:
    hidden_TD = torch.randn(4, 8, dtype=torch.bfloat16, requires_grad=True)
    head = Head(torch.randn(16, 8, dtype=torch.bfloat16, requires_grad=True))
    other = torch.randn(4, 8, dtype=torch.bfloat16)
    teacher, target_T = Projected(other, head), torch.zeros(4, dtype=torch.long)
    result = chunked_divergence(KINDS[0], hidden_TD, head, teacher, target_T, torch.ones(4), vocabulary=16)
    result.weighted_sum.backward()
    assert result.divergence_T.dtype == torch.float32
    assert hidden_TD.grad is not None
    assert hidden_TD.grad.dtype == torch.bfloat16


def test_a_head_smaller_than_the_vocabulary_is_refused() -> None:
    case = Case()
    case.vocabulary = 50
    with pytest.raises(ValueError, match="student's output layer has 14 rows"):
        case.chunked(KINDS[0], 4)


def test_empty_input_gives_zero_and_a_gradient() -> None:
    hidden_TD = torch.zeros(0, 5, dtype=torch.float64, requires_grad=True)
    head = Head(torch.zeros(4, 5, dtype=torch.float64, requires_grad=True))
    empty = torch.zeros(0, dtype=torch.float64)
    teacher = Projected(hidden_TD, head)
    result = chunked_divergence(KINDS[0], hidden_TD, head, teacher, empty.long(), empty, vocabulary=4)
    result.weighted_sum.backward()
    assert result.weighted_sum.item() == 0
    assert head.weight_VD.grad.abs().max() == 0

"""Distributions of which the likeliest tokens are known, against the whole ones in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sage.objective.divergence.base import Divergence
from sage.objective.divergence.estimators import SampledToken, TopK
from sage.teacher.server.head import LikeliestHead, states_of
from sage.teacher.server.protocol import Likeliest

V = 64


def whole(rows: int, seed: int, sharp: float = 3.0) -> torch.Tensor:
    """Normalised log-probabilities [rows, V] in float64."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, V, generator=generator, dtype=torch.float64) * sharp).log_softmax(-1)


def known(logprob_TV: torch.Tensor, target_T: torch.Tensor, k: int) -> torch.Tensor:
    best = logprob_TV.topk(k)
    chosen = logprob_TV.gather(-1, target_T[:, None]).squeeze(-1)
    return states_of(Likeliest(best.indices.numpy(), best.values.numpy(), chosen.numpy()), target_T.numpy())


@pytest.mark.parametrize("sharp", [0.01, 1.0, 3.0])
@pytest.mark.parametrize(
    "divergence",
    [
        TopK(name="top_k", k=5, kind="reverse_kl", beta=0.5),
        TopK(name="top_k", k=3, kind="forward_kl", beta=0.5),
        TopK(name="top_k", k=5, kind="jsd", beta=0.3),
        SampledToken(name="sampled_token", estimator="k2", gradient="loss"),
    ],
    ids=lambda d: d.name + getattr(d, "kind", ""),
)
def test_a_divergence_that_reads_no_more_is_that_of_the_whole_distribution(
    divergence: Divergence, sharp: float
) -> None:
    teacher, student = whole(40, 1, sharp), whole(40, 2)
    target = torch.randint(0, V, (40,), generator=torch.Generator().manual_seed(3))
    logits = LikeliestHead(V).logits(known(teacher, target, 5), V)
    got, slope = divergence.value_and_slope(student.clone(), logits.double().log_softmax(-1), target)
    want, true_slope = divergence.value_and_slope(student.clone(), teacher.clone(), target)
    torch.testing.assert_close(got, want, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(slope, true_slope, rtol=2e-3, atol=2e-4)


def test_top1_and_margin_are_exact_and_a_token_among_the_others_keeps_its_own_probability() -> None:
    teacher = whole(20, 4)
    target = teacher.argmin(-1)  # never among the likeliest
    made = LikeliestHead(V).logits(known(teacher, target, 2), V).double().log_softmax(-1)
    torch.testing.assert_close(made.topk(2).values, teacher.topk(2).values, rtol=0, atol=1e-5)
    assert torch.equal(made.topk(2).indices, teacher.topk(2).indices)
    torch.testing.assert_close(
        made.gather(-1, target[:, None]), teacher.gather(-1, target[:, None]), rtol=0, atol=1e-4
    )
    assert torch.allclose(made.exp().sum(-1), torch.ones(20, dtype=torch.float64))


def test_ids_beyond_the_shared_vocabulary_take_no_part() -> None:
    """A padded embedding or a larger tokenizer: the distribution is renormalised over the student's ids."""
    teacher, target, shared = whole(30, 5), torch.zeros(30, dtype=torch.long), 40
    made = LikeliestHead(V).logits(known(teacher, target, V), shared).double().log_softmax(-1)
    torch.testing.assert_close(made, teacher[:, :shared].log_softmax(-1), rtol=0, atol=1e-4)


def test_fewer_tokens_than_asked_for_are_what_there_is() -> None:
    """A server that masks its vocabulary may know of fewer: minus one and −inf stand for nothing."""
    two = Likeliest(
        np.array([[7, 3, -1]]), np.array([[np.log(0.75), np.log(0.25), -np.inf]]), np.array([np.log(0.25)])
    )
    made = LikeliestHead(V).logits(states_of(two, np.array([3])), V).softmax(-1)[0]
    assert made[7].item() == pytest.approx(0.75, abs=1e-6)
    assert made[3].item() == pytest.approx(0.25, abs=1e-6)
    assert float(made.sum() - made[7] - made[3]) < 1e-5


def test_where_the_others_are_too_faint_for_float32_they_are_estimated_from_how_the_likeliest_fall() -> None:
    """p_i ∝ i^−6: all behind the sixteenth have 2e-7 together, of which one minus sixteen float32 numbers
    says nothing."""
    law = (-6 * torch.arange(1, 2001, dtype=torch.float64).log()).log_softmax(-1)
    rounded = law[None].float().double()
    target = torch.tensor([0])
    behind = float(law[16:].exp().sum())
    assert behind < 3e-7
    made = LikeliestHead(2000).logits(known(rounded, target, 16), 2000).double().log_softmax(-1)
    assert float(made[0, 16:].exp().sum()) == pytest.approx(behind, rel=0.25)
    steep = torch.tensor([[0.0, -60.0, *[-70.0 - i for i in range(100)]]], dtype=torch.float64)
    made = LikeliestHead(102).logits(known(steep, target, 16), 102).double()
    assert float(made[0, 20]) <= float(steep[0, 15]), "no other token is likelier than the k-th"

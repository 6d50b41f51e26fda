"""Losses from the sampled token, the likeliest tokens, a gate: hand-worked numbers, scipy, and their mean
gradients."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from pydantic import ValidationError

from sage.config.load import load
from sage.errors import ConfigError
from sage.objective.confidence.signals import SIGNALS, top_k_entropy
from sage.objective.divergence.base import Divergence, ForwardKL, ReverseKL
from sage.objective.divergence.estimators import (
    EntropyGated,
    Mixture,
    NegativeLogLikelihood,
    SampledToken,
    TopK,
    bucketed,
)

REVERSE, FORWARD = ReverseKL(name="reverse_kl"), ForwardKL(name="forward_kl")
P, Q = (0.5, 0.3, 0.2), (0.2, 0.7, 0.1)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def token(index: int) -> torch.Tensor:
    return torch.tensor([index])


def sampled(estimator: str, gradient: str = "loss") -> SampledToken:
    return SampledToken.model_validate(
        {"name": "sampled_token", "estimator": estimator, "gradient": gradient}
    )


def random_pair(seed: int, vocabulary: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    both = (scipy.special.log_softmax(2 * draw.normal(size=(4, vocabulary)), axis=-1) for _ in range(2))
    student, teacher = (torch.from_numpy(x) for x in both)
    return student, teacher


def test_estimates_by_hand() -> None:
    # token 1: r = ln(0.3 / 0.7)
    r = math.log(0.3 / 0.7)
    expected = {"k1": r, "k2": r * r / 2, "k3": 0.7 / 0.3 - 1 + r}
    for name, value in expected.items():
        gradient = "advantage" if name == "k1" else "loss"
        found = sampled(name, gradient).value(logs(*P), logs(*Q), token(1))
        assert found.item() == pytest.approx(value, abs=1e-14)
    assert sampled("k3").value(logs(*P), logs(*Q), token(1)).item() > 0


def test_k1_as_a_loss_is_refused() -> None:
    with pytest.raises(ValidationError, match="gradient of mean zero"):
        sampled("k1")


@pytest.mark.parametrize(("estimator", "mean"), [("k1", REVERSE), ("k3", REVERSE)])
def test_unbiased_estimates_average_to_reverse_kl(estimator: str, mean: Divergence) -> None:
    student, teacher = random_pair(3)
    kind = sampled(estimator, "advantage")
    total = torch.zeros(4, dtype=torch.float64)
    for v in range(9):
        target = torch.full((4,), v)
        total += student[:, v].exp() * kind.value(student, teacher, target)
    torch.testing.assert_close(total, mean.value(student, teacher, token(0)))


@pytest.mark.parametrize(
    ("estimator", "gradient", "whole"),
    [("k2", "loss", REVERSE), ("k1", "advantage", REVERSE), ("k3", "loss", FORWARD)],
)
def test_the_mean_gradient_is_that_of_the_whole_divergence(
    estimator: str, gradient: str, whole: Divergence
) -> None:
    """Summed over all tokens with the student's probabilities: exact, no sampling."""
    student, teacher = random_pair(4)
    kind = sampled(estimator, gradient)
    total = torch.zeros_like(student)
    for v in range(9):
        _, slope = kind.value_and_slope(student.clone(), teacher.clone(), torch.full((4,), v))
        total += student[:, v, None].exp() * slope
    _, expected = whole.value_and_slope(student.clone(), teacher.clone(), token(0))
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_slope_of_a_sampled_loss_is_its_derivative(estimator: str) -> None:
    student, teacher = random_pair(5)
    target = torch.tensor([0, 3, 8, 2])
    kind = sampled(estimator)
    value, slope = kind.value_and_slope(student.clone(), teacher.clone(), target)
    auto_value, auto_slope = Divergence.value_and_slope(kind, student.clone(), teacher.clone(), target)
    torch.testing.assert_close(value, auto_value)
    torch.testing.assert_close(slope, auto_slope)


def test_negative_log_likelihood_is_torchs_cross_entropy() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([0, 3, 8, 2])
    parameter = logits.clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(parameter, target, reduction="none")
    (expected_slope,) = torch.autograd.grad(expected.sum(), parameter)
    logp = logits.log_softmax(-1)
    value, slope = NegativeLogLikelihood(name="nll").value_and_slope(logp.clone(), logp.clone(), target)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, expected_slope)


def test_a_token_outside_the_shared_vocabulary_teaches_nothing() -> None:
    student, teacher = random_pair(6)
    target = torch.tensor([0, 9, 12, 2])
    for kind in (NegativeLogLikelihood(name="nll"), sampled("k2"), sampled("k1", "advantage")):
        value, slope = kind.value_and_slope(student.clone(), teacher.clone(), target)
        assert value[1:3].tolist() == [0, 0]
        assert slope[1:3].abs().max() == 0
        assert slope[0].abs().max() > 0


def test_buckets_by_hand() -> None:
    student, teacher = bucketed(logs(*P), logs(*Q), 1)
    # The teacher's likeliest is token 1; the rest share a bucket.
    assert student.exp().tolist()[0] == pytest.approx([0.3, 0.7])
    assert teacher.exp().tolist()[0] == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "jsd"])
def test_top_k_grows_to_the_whole_divergence(kind: str) -> None:
    student, teacher = random_pair(7)
    values = []
    for k in (1, 3, 6, 8):
        rule = TopK.model_validate({"name": "top_k", "k": k, "kind": kind, "beta": 0.5})
        values.append(rule.value(student, teacher, token(0)))
    for small, large in pairwise(values):
        assert (large - small > -1e-12).all()
    if kind == "reverse_kl":
        # k = V - 1: the bucket holds one token.
        torch.testing.assert_close(values[-1], REVERSE.value(student, teacher, token(0)))


def test_the_slope_of_top_k_is_finite_where_the_head_is_nearly_everything() -> None:
    student = torch.tensor([[50.0, 0.0, -50.0, -60.0]]).log_softmax(-1)
    teacher = torch.tensor([[-40.0, 60.0, 0.0, -5.0]]).log_softmax(-1)
    rule = TopK(name="top_k", k=2, kind="reverse_kl", beta=0.5)
    value, slope = rule.value_and_slope(student, teacher, token(0))
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()


def test_mixture_and_gate_by_scipy() -> None:
    student, teacher = random_pair(8)
    p, q = student.exp().numpy(), teacher.exp().numpy()
    reverse, forward = (scipy.stats.entropy(a, b, axis=-1) for a, b in ((p, q), (q, p)))
    mixture = Mixture(name="mixture", forward_weight=0.25).value(student, teacher, token(0))
    np.testing.assert_allclose(mixture.numpy(), 0.25 * forward + 0.75 * reverse)

    entropy = scipy.stats.entropy(q, axis=-1)
    tau = float(np.median(entropy))
    gated = EntropyGated(name="entropy_gated", tau=tau, top_k=9).value(student, teacher, token(0))
    # k = V - 1 kept tokens and the last one in the bucket: the forward term is the whole one.
    np.testing.assert_allclose(gated.numpy(), reverse + (entropy > tau) * forward)
    assert 0 < (entropy > tau).sum() < 4


def test_signals_by_hand_and_by_scipy() -> None:
    assert SIGNALS["top1"](logs(*Q)).item() == pytest.approx(0.7)
    assert SIGNALS["margin"](logs(*Q)).item() == pytest.approx(0.5)
    assert SIGNALS["entropy"](logs(*Q)).item() == pytest.approx(1 - scipy.stats.entropy(Q, base=3))
    assert SIGNALS["entropy"](logs(1 / 3, 1 / 3, 1 / 3)).item() == pytest.approx(0, abs=1e-12)
    assert SIGNALS["entropy"](logs(1.0, 0.0, 0.0)).item() == 1
    assert top_k_entropy(logs(*Q), 2).item() == pytest.approx(scipy.stats.entropy([7 / 9, 2 / 9]))


# --- sampled at another temperature


@pytest.mark.parametrize("temperature", [0.4, 0.8, 1.0, 1.7])
@pytest.mark.parametrize(
    ("estimator", "gradient", "whole"),
    [("k1", "advantage", REVERSE), ("k2", "loss", REVERSE), ("k3", "loss", FORWARD)],
)
def test_at_any_temperature_the_mean_slope_is_that_of_the_whole_divergence(
    temperature: float, estimator: str, gradient: str, whole: Divergence
) -> None:
    """By enumeration: every token times its probability of being sampled at τ."""
    student, teacher = random_pair(5)
    kind = sampled(estimator, gradient).sampled_at(temperature, top_p=1.0)
    p_tau = scipy.special.softmax(student.numpy() / temperature, axis=-1)
    mean_slope, mean_value = torch.zeros_like(student), torch.zeros(4, dtype=torch.float64)
    for v in range(student.shape[-1]):
        target = torch.full((4,), v)
        value, slope = kind.value_and_slope(student.clone(), teacher.clone(), target)
        torch.testing.assert_close(value, kind.value(student, teacher, target))
        share = torch.from_numpy(p_tau[:, v].copy())
        mean_slope += share[:, None] * slope
        mean_value += share * value
    expected_value, expected = whole.value_and_slope(student.clone(), teacher.clone(), token(0))
    torch.testing.assert_close(mean_slope, expected, rtol=1e-10, atol=1e-12)
    if estimator == "k1":
        torch.testing.assert_close(mean_value, expected_value, rtol=1e-10, atol=1e-12)


def test_the_temperature_is_that_of_the_run_and_what_cannot_be_unbiased_is_refused() -> None:
    config = load(["method=policy_gradient_opd", "rollout.temperature=0.8"])
    kind = config.divergence.sampled_at(config.rollout.temperature, config.rollout.top_p)
    student, teacher = random_pair(2)
    ones = torch.ones(4, dtype=torch.long)
    plain, scaled = (k.value(student, teacher, ones) for k in (config.divergence, kind))
    p, tau = student[:, 1].exp(), scipy.special.softmax(student.numpy() / 0.8, axis=-1)[:, 1]
    torch.testing.assert_close(scaled, plain * p / torch.from_numpy(tau))
    for changed, sentence in (
        ("rollout.temperature=0", "temperature 0 leaves some out"),
        ("rollout.top_p=0.9", r"top_p 0.9 leaves some out; set rollout.top_p=1"),
        ("rollout.player=teacher", "needs tokens that the student sampled"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            load(["method=policy_gradient_opd", changed])
    assert load(["method=opd", "rollout.top_p=0.9"]).divergence.sampled_at(0.0, 0.9) is not None

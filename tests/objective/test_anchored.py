"""Losses with a reference model: hand-worked numbers, scipy, and the dense gradients they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from sage.episode import Decision, Label
from sage.objective.chunked import Head, Projected, chunked_divergence
from sage.objective.divergence.anchored import Anchored, Extrapolated
from sage.objective.divergence.base import Divergence, ReverseKL
from sage.objective.divergence.blend import blended
from sage.objective.normalization import Unnormalized
from sage.policy.models.load import LanguageModel
from sage.training.batch import Models, TrainingEpisode
from sage.training.gradient import Objective
from tests.chunks import chunks_of
from tests.training.test_gradient import make_batch, models, objective, run

REVERSE = ReverseKL(name="reverse_kl")
P, Q, R = (0.5, 0.3, 0.2), (0.2, 0.7, 0.1), (0.4, 0.4, 0.2)
NO_TARGET = torch.zeros(1, dtype=torch.long)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def blend(kind: Divergence) -> torch.Tensor:
    """What the chunked objective hands over as the teacher: q and π_ref through a head of ones."""
    assert kind.anchor is not None
    identity = Head(torch.eye(3, dtype=torch.float64))
    both = blended(Projected(logs(*Q), identity), Projected(logs(*R), identity), kind.anchor)
    return both.logits(torch.tensor([0]), 3).log_softmax(-1)


def test_extrapolation_with_a_reference_by_hand() -> None:
    # λ = 2: q² / π_ref = 0.1, 1.225, 0.05, renormalised by 1.375
    rule = Extrapolated(name="extrapolated", strength=2.0, reference="student")
    target = np.array([0.1, 1.225, 0.05]) / 1.375
    np.testing.assert_allclose(blend(rule).exp().numpy()[0], target, rtol=1e-12)
    found = rule.value(logs(*P), blend(rule), NO_TARGET).item()
    assert found == pytest.approx(scipy.stats.entropy(P, target), abs=1e-12)


def test_extrapolation_of_a_uniform_reference_sharpens_the_teacher() -> None:
    # λ = 2: q² renormalised = (4, 49, 1) / 54
    rule = Extrapolated(name="extrapolated", strength=2.0, reference="uniform")
    assert rule.anchor is None
    expected = scipy.stats.entropy(P, np.array([4, 49, 1]) / 54)
    assert rule.value(logs(*P), logs(*Q), NO_TARGET).item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("reference", ["uniform", "student"])
def test_a_strength_of_one_is_reverse_kl(reference: str) -> None:
    rule = Extrapolated(name="extrapolated", strength=1.0, reference=reference)
    teacher = logs(*Q) if rule.anchor is None else blend(rule)
    for a, b in zip(
        rule.value_and_slope(logs(*P), teacher, NO_TARGET),
        REVERSE.value_and_slope(logs(*P), logs(*Q), NO_TARGET),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_constraint_is_both_divergences_less_what_the_student_cannot_change() -> None:
    beta = 0.5
    rule = Anchored(name="anchored", strength=beta, reference="student")
    q, r = np.array(Q), np.array(R)
    both = scipy.stats.entropy(P, q) + beta * scipy.stats.entropy(P, r)
    constant = -(1 + beta) * np.log(((q * r**beta) ** (1 / (1 + beta))).sum())
    assert constant > 0
    value, slope = rule.value_and_slope(logs(*P), blend(rule), NO_TARGET)
    assert value.item() == pytest.approx(both - constant, abs=1e-12)
    expected = (
        REVERSE.value_and_slope(logs(*P), logs(*Q), NO_TARGET)[1]
        + beta * REVERSE.value_and_slope(logs(*P), logs(*R), NO_TARGET)[1]
    )
    torch.testing.assert_close(slope, expected)


def test_a_blend_of_models_in_half_precision_is_widened() -> None:
    torch.manual_seed(0)
    own = Head(torch.randn(16, 8, dtype=torch.bfloat16))
    other = Head(torch.randn(20, 4), torch.randn(20))
    anchor = Anchored(name="anchored", strength=1.0, reference="student").anchor
    assert anchor is not None
    teacher, reference = torch.randn(5, 8, dtype=torch.bfloat16), torch.randn(5, 4)
    both = blended(Projected(teacher, own), Projected(reference, other), anchor)
    logits = both.logits(torch.arange(5), 16)
    assert logits.dtype == torch.float32
    expected = own.logits(teacher, 16) / 2 + other.logits(reference, 16) / 2
    torch.testing.assert_close(logits, expected)
    student = torch.randn(5, 6, requires_grad=True)
    with chunks_of(2):
        result = chunked_divergence(
            REVERSE,
            student,
            Head(torch.randn(16, 6)),
            both,
            torch.zeros(5, dtype=torch.long),
            torch.ones(5),
            vocabulary=16,
        )
    result.weighted_sum.backward()
    assert student.grad is not None


def dense_gradient(both: Models, batch: list[TrainingEpisode], beta: float) -> torch.Tensor:
    """Mean over tokens of KL(p ‖ q) + β KL(p ‖ π_ref), from the models' own logits."""
    assert both.reference is not None
    both.student.model.zero_grad(set_to_none=True)
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for played in batch:
        ids = torch.tensor([played.episode.token_ids])

        def logprobs(lm: LanguageModel, ids: torch.Tensor = ids) -> torch.Tensor:
            return lm.model(input_ids=ids).logits[0, :, : both.vocabulary].log_softmax(-1)

        student = logprobs(both.student)
        with torch.no_grad():
            teacher, reference = logprobs(both.teacher), logprobs(both.reference)
        for turn in played.episode.turns:
            where = slice(turn.answer_start - 1, turn.answer_end - 1)
            p = student[where]
            total = total + (p.exp() * (p - teacher[where])).sum()
            total = total + beta * (p.exp() * (p - reference[where])).sum()
            tokens += turn.n_tokens
    (total / tokens).backward()
    parameters = both.student.model.parameters()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def test_the_gradient_with_a_reference_is_that_of_the_dense_equation() -> None:
    both, beta = models(), 0.3
    plain = objective(confidence="none", normalization=Unnormalized)
    rule = Anchored(name="anchored", strength=beta, reference="student")
    batch = [
        TrainingEpisode(played.episode, [Decision(Label.ALWAYS, 1.0) for _ in played.decisions])
        for played in make_batch()
    ]
    expected = dense_gradient(both, batch, beta)
    rules = Objective(plain.confidence, plain.normalization, rule)
    _, gradient = run(both, rules, batch, chunk_tokens=5)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-10)


def test_without_a_reference_model_it_is_refused() -> None:
    both = models()
    alone = Models(both.student, both.teacher, both.vocabulary, None)
    rules = objective(divergence=Anchored(name="anchored", strength=1.0, reference="student"))
    with pytest.raises(ValueError, match="needs a reference model"):
        run(alone, rules, make_batch())

"""The gradient under every rule of the config groups: split invariance, dense equations, equality with
OPD."""

from __future__ import annotations

import pytest
import torch

from sage.config.components import conf_dir
from sage.config.load import load
from sage.episode import Decision, Label
from sage.objective.divergence.base import Divergence
from sage.training.batch import TrainingEpisode, score_batch
from sage.training.gradient import Objective
from tests.training.test_gradient import make_batch, models, run

CONFIDENCES = sorted(path.stem for path in (conf_dir() / "confidence").glob("*.yaml"))
DIVERGENCES = sorted(path.stem for path in (conf_dir() / "divergence").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))


def rules_of(*overrides: str) -> Objective:
    config = load(list(overrides))
    return Objective(config.confidence, config.normalization, config.divergence)


WEIGHTS = [f"confidence={name}" for name in CONFIDENCES] + ["normalization=matched_scale"]
LOW_GATE = {"confidence=threshold": ["confidence.tau=0.006"]}
"""A random teacher is never half sure."""


@pytest.mark.parametrize("choice", WEIGHTS)
def test_micro_batches_change_nothing_under_any_weight(choice: str) -> None:
    both, rules = models(torch.float64), rules_of(choice, *LOW_GATE.get(choice, []))
    runs = [run(both, rules, make_batch(7), micro_batch=size) for size in (7, 2)]
    assert runs[0][0].loss == pytest.approx(runs[1][0].loss, rel=1e-9)
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=1e-8, atol=1e-12)
    assert runs[0][1].abs().max() > 0


@pytest.mark.parametrize("name", DIVERGENCES)
def test_chunks_and_micro_batches_change_no_divergence(name: str) -> None:
    both, rules = models(torch.float64), rules_of(f"divergence={name}")
    runs = [
        run(both, rules, make_batch(), micro_batch=size, chunk_tokens=chunk)
        for size, chunk in ((5, None), (2, 3))
    ]
    assert runs[0][0].loss == pytest.approx(runs[1][0].loss, rel=1e-9)
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("method", [name for name in PRESETS if name != "base"])
def test_all_strong_without_confidence_is_opd(method: str) -> None:
    """Whatever else a preset composes: with every label STRONG, confidence none and the loss of OPD it is
    OPD."""
    both = models()
    rules = rules_of(f"method={method}", "confidence=none", "divergence=reverse_kl")
    strong = make_batch(labels=[Label.STRONG])
    opd = [TrainingEpisode(p.episode, [Decision(Label.ALWAYS, 1.0) for _ in p.decisions]) for p in strong]
    expected, gradient = run(both, rules_of("method=opd"), opd)
    loss, got = run(both, rules, strong)
    assert loss.loss == pytest.approx(expected.loss, rel=1e-6)
    torch.testing.assert_close(got, gradient, rtol=1e-6, atol=1e-12)


def test_the_students_own_scores_are_those_of_its_dense_logits() -> None:
    both, batch = models(), make_batch()
    rules = rules_of("confidence=drift")
    scored = score_batch(both, rules.confidence, batch, micro_batch=2)
    for group, stats in zip(scored.groups, scored.stats, strict=True):
        for played, turns in zip(group, stats, strict=True):
            ids = torch.tensor([played.episode.token_ids])
            with torch.no_grad():
                logits = both.student.model(input_ids=ids).logits[0, :, : both.vocabulary]
            dense = logits.log_softmax(-1)
            for turn, found, noted in zip(played.episode.turns, turns, played.scores, strict=True):
                answer = torch.tensor(played.episode.token_ids[turn.answer_start : turn.answer_end])[:, None]
                expected = dense[turn.answer_start - 1 : turn.answer_end - 1].gather(-1, answer).squeeze(-1)
                torch.testing.assert_close(found.student_logprob_T, expected)
                assert noted.student_logprob == pytest.approx(float(expected.mean()))


def test_a_batch_scored_beforehand_gives_the_same_gradient() -> None:
    both, rules = models(), rules_of("method=sage_opd")
    loss, gradient = run(both, rules, make_batch())
    batch = make_batch()
    scored = score_batch(both, rules.confidence, batch, micro_batch=2, with_student=True)
    again, same = run(both, rules, batch, scored=scored)
    assert again.loss == loss.loss
    assert again.teacher_tokens == loss.teacher_tokens
    assert torch.equal(gradient, same)


def test_matched_scale_trains_skipped_turns_also_without_logging() -> None:
    both, rules = models(), rules_of("method=matched_scale")
    with_log, gradient = run(both, rules, make_batch())
    without, same = run(both, rules, make_batch(), log_skipped=False)
    assert without.loss == pytest.approx(with_log.loss, rel=1e-10)
    torch.testing.assert_close(gradient, same, rtol=1e-8, atol=1e-12)
    # Linear in the loss: OPD's gradient times the rule's mean weight.
    opd = [
        TrainingEpisode(p.episode, [Decision(Label.ALWAYS, 1.0) for _ in p.decisions]) for p in make_batch()
    ]
    _, full = run(both, rules_of("method=opd"), opd)
    mean = with_log.sums.weighted / with_log.sums.tokens
    # Only as close as float32: Qwen3's layer norm rounds to it, and not the same for both scales.
    assert float((gradient - mean * full).norm() / gradient.norm()) < 1e-6
    assert 0 < mean < 1


def test_a_divergence_sees_the_sampled_tokens() -> None:
    """−log p of the answer, summed over the dense logits of the student."""
    both, batch = models(), make_batch(labels=[Label.STRONG])
    rules = rules_of("method=opd", "divergence=nll")
    loss, _ = run(both, rules, batch, chunk_tokens=4)
    total, tokens = 0.0, 0
    for played in batch:
        ids = torch.tensor([played.episode.token_ids])
        with torch.no_grad():
            dense = both.student.model(input_ids=ids).logits[0, :, : both.vocabulary].log_softmax(-1)
        for turn in played.episode.turns:
            answer = ids[0, turn.answer_start : turn.answer_end, None]
            total -= float(dense[turn.answer_start - 1 : turn.answer_end - 1].gather(-1, answer).sum())
            tokens += turn.n_tokens
    assert loss.loss == pytest.approx(total / tokens, rel=1e-10)
    assert isinstance(rules.divergence, Divergence)


@pytest.mark.parametrize(
    "choice",
    [*WEIGHTS, "confidence=shuffled confidence@confidence.rule=drift", "normalization=active_token"],
)
@pytest.mark.parametrize("scope", ["batch", "trajectory"])
def test_skipped_turns_left_out_of_the_records_change_no_loss_under_any_weight(
    choice: str, scope: str
) -> None:
    both = models()
    rules = rules_of(*choice.split(), *LOW_GATE.get(choice, []), f"normalization.scope={scope}")
    batch = make_batch(7)
    skipped = [d.weight == 0 for played in batch for d in played.decisions]
    assert True in skipped
    (full, gradient), (lean, same) = (
        run(both, rules, make_batch(7), log_skipped=log_skipped) for log_skipped in (True, False)
    )
    assert lean.loss == pytest.approx(full.loss, rel=1e-12)
    torch.testing.assert_close(same, gradient, rtol=1e-9, atol=1e-13)

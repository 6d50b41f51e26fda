"""One batch's gradient: an independent dense reference, split invariance, teacher = student, skipping."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import pytest
import torch

from sage.episode import Decision, Label
from sage.objective.confidence.base import Threshold, Top1, Unweighted
from sage.objective.divergence.base import JSD, Divergence, ForwardKL, ReverseKL
from sage.objective.normalization import ActiveToken, AllToken, Normalization, Unnormalized
from sage.policy.models.load import LanguageModel
from sage.training.batch import Models, TrainingEpisode, match_models
from sage.training.gradient import BatchLoss, Objective, accumulate_gradient
from sage.training.processes import Processes
from tests.chunks import chunks_of
from tests.tiny_models import make_episode, tiny_lm

LABELS = {Label.SKIP: 0.0, Label.WEAK: 0.5, Label.STRONG: 1.0}


def objective(
    *,
    confidence: str = "top1",
    normalization: type[Normalization] = AllToken,
    divergence: Divergence | None = None,
    scope: str = "batch",
    temperature: float = 1.0,
) -> Objective:
    rules = {
        "none": Unweighted(name="none", teacher_temperature=temperature),
        "top1": Top1(name="top1", per="turn", teacher_temperature=temperature),
        "gate": Threshold(
            name="threshold",
            signal="top1",
            per="turn",
            tau=0.1,
            kind="hard",
            softness=1,
            teacher_temperature=temperature,
        ),
    }
    normal = normalization(name="x", scope=scope, epsilon=1e-8, z_max=None)  # type: ignore[arg-type]
    return Objective(rules[confidence], normal, divergence or ReverseKL(name="reverse_kl"))


def make_batch(count: int = 5, labels: Sequence[Label] | None = None, seed: int = 0) -> list[TrainingEpisode]:
    chosen = random.Random(seed)
    batch = []
    for number in range(count):
        episode = make_episode(number, 1 + number % 4, seed=seed)
        turns = [chosen.choice(labels or list(LABELS)) for _ in episode.turns]
        batch.append(TrainingEpisode(episode, [Decision(label, LABELS[label]) for label in turns]))
    return batch


def models(dtype: torch.dtype = torch.float64, tie: bool = True) -> Models:
    student = tiny_lm(1, dtype=dtype, rows=272, tie=tie)
    # The reference is only looked at by a divergence that has an anchor.
    reference = tiny_lm(3, dtype=dtype, rows=280, hidden=24)
    return match_models(student, tiny_lm(2, dtype=dtype, rows=300, hidden=48), reference)


def run(
    both: Models,
    rules: Objective,
    batch: list[TrainingEpisode],
    chunk_tokens: int | None = None,
    **options: object,
) -> tuple[BatchLoss, torch.Tensor]:
    """(loss, flat gradient) of a batch."""
    both.student.model.zero_grad(set_to_none=True)
    with chunks_of(chunk_tokens):
        loss = accumulate_gradient(both, rules, batch, **{"micro_batch": 2, **options})  # type: ignore[arg-type]
    return loss, flat_gradient(both.student)


def flat_gradient(lm: LanguageModel) -> torch.Tensor:
    parameters = lm.model.parameters()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def dense_reference(
    both: Models, rules: Objective, batch: list[TrainingEpisode]
) -> tuple[float, torch.Tensor]:
    """The equations of method.md sections 2 to 5, token by token, with the models' own dense logits."""
    V, temperature = both.vocabulary, rules.confidence.teacher_temperature
    both.student.model.zero_grad(set_to_none=True)
    terms = []  # (episode, weight s, tokens, loss per token)
    for e, played in enumerate(batch):
        ids = torch.tensor([played.episode.token_ids])
        student = both.student.model(input_ids=ids).logits[0, :, :V]
        with torch.no_grad():
            teacher = both.teacher.model(input_ids=ids).logits[0, :, :V]
        for turn, decision in zip(played.episode.turns, played.decisions, strict=True):
            where = slice(turn.answer_start - 1, turn.answer_end - 1)
            p, q = student[where].softmax(-1), teacher[where].softmax(-1)
            if isinstance(rules.divergence, ReverseKL):
                each = (p * (p / q).log()).sum(-1)
            elif isinstance(rules.divergence, ForwardKL):
                each = (q * (q / p).log()).sum(-1)
            else:
                beta = rules.divergence.beta  # type: ignore[attr-defined]
                m = beta * q + (1 - beta) * p
                each = beta * (q * (q / m).log()).sum(-1) + (1 - beta) * (p * (p / m).log()).sum(-1)
            top1 = (teacher[where] / temperature).softmax(-1).amax(-1).mean()
            c = {"none": 1.0, "top1": float(top1), "threshold": float(top1 >= 0.1)}[rules.confidence.name]
            terms.append((e, decision.weight * c, turn.n_tokens, each))

    def z_of(chosen: list) -> float:  # type: ignore[type-arg]
        weighted = sum(s * n for _, s, n, _ in chosen)
        if isinstance(rules.normalization, Unnormalized) or weighted == 0:
            return 1.0
        active = isinstance(rules.normalization, ActiveToken)
        return sum(n for _, s, n, _ in chosen if s > 0 or not active) / weighted

    total = sum(n for _, _, n, _ in terms)
    loss = torch.zeros((), dtype=torch.float64)
    for e, s, _, each in terms:
        scope = [t for t in terms if t[0] == e] if rules.normalization.scope == "trajectory" else terms
        loss = loss + z_of(scope) * s * each.sum() / total
    loss.backward()
    return float(loss.detach()), flat_gradient(both.student)


@pytest.mark.parametrize(
    "rules",
    [
        objective(),
        objective(confidence="none", normalization=Unnormalized),
        objective(confidence="gate", normalization=ActiveToken, temperature=0.7),
        objective(scope="trajectory", divergence=ForwardKL(name="forward_kl")),
        objective(divergence=JSD(name="jsd", beta=0.3), temperature=1.5),
        objective(normalization=ActiveToken, scope="trajectory"),
    ],
)
def test_loss_and_gradient_equal_the_dense_equations(rules: Objective) -> None:
    both, batch = models(), make_batch()
    expected_loss, expected = dense_reference(both, rules, batch)
    for log_skipped in (True, False):
        loss, gradient = run(both, rules, batch, log_skipped=log_skipped, chunk_tokens=7)
        assert loss.loss == pytest.approx(expected_loss, rel=1e-10)
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-11)


def test_untied_head_too() -> None:
    both, batch = models(tie=False), make_batch()
    _, expected = dense_reference(both, objective(), batch)
    _, gradient = run(both, objective(), batch)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("scope", ["batch", "trajectory"])
def test_micro_batches_change_nothing(scope: str) -> None:
    both, rules = models(torch.float32), objective(scope=scope)
    runs = [run(both, rules, make_batch(7), micro_batch=size) for size in (7, 3, 1)]
    for loss, gradient in runs[1:]:
        assert loss.loss == pytest.approx(runs[0][0].loss, rel=1e-5)
        assert float((gradient - runs[0][1]).norm() / runs[0][1].norm()) < 1e-5
        assert loss.sums == runs[0][0].sums or loss.sums.weighted == pytest.approx(runs[0][0].sums.weighted)


def test_two_parts_add_up_to_the_whole() -> None:
    """What two processes compute: each its half, with sums over both."""
    both, rules = models(torch.float32), objective()
    whole, expected = run(both, rules, make_batch(6))
    parts = make_batch(6)
    halves = [parts[:1], parts[1:]]
    here: list[tuple[float, ...]] = []

    class Asked(Processes):
        def all_reduce_sum(self, numbers: Sequence[float]) -> list[float]:
            here.append(tuple(numbers))
            return list(numbers)

    class Two(Processes):
        def all_reduce_sum(self, numbers: Sequence[float]) -> list[float]:
            return sums if len(numbers) == 3 else list(numbers)

    for half in halves:
        run(both, rules, half, processes=Asked())
    sums = [sum(pair_) for pair_ in zip(here[0], here[2], strict=True)]
    total, loss = torch.zeros_like(expected), 0.0
    for half in halves:
        part, gradient = run(both, rules, half, processes=Two())
        total, loss = total + gradient, loss + part.loss
    assert loss == pytest.approx(whole.loss, rel=1e-5)
    assert float((total - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [ReverseKL(name="r"), ForwardKL(name="f"), JSD(name="j", beta=0.5)])
def test_teacher_equal_to_student_gives_zero(dtype: torch.dtype, kind: Divergence) -> None:
    student = tiny_lm(1, dtype=dtype)
    teacher = copy.deepcopy(student)
    loss, gradient = run(match_models(student, teacher), objective(divergence=kind), make_batch())
    assert loss.loss == 0.0
    assert gradient.abs().max() == 0.0


def test_all_strong_without_confidence_is_opd() -> None:
    both = models()
    strong = make_batch(labels=[Label.STRONG])
    opd = [TrainingEpisode(p.episode, [Decision(Label.ALWAYS, 1.0) for _ in p.decisions]) for p in strong]
    expected, gradient = run(both, objective(confidence="none", normalization=Unnormalized), opd)
    for normalization in (Unnormalized, AllToken, ActiveToken):
        for scope in ("batch", "trajectory"):
            rules = objective(confidence="none", normalization=normalization, scope=scope)
            loss, got = run(both, rules, strong)
            assert loss.loss == pytest.approx(expected.loss, rel=1e-6)
            torch.testing.assert_close(got, gradient, rtol=1e-6, atol=1e-12)
    mean = sum(s.divergence * t.n_tokens for p in opd for s, t in zip(p.scores, p.episode.turns, strict=True))
    assert expected.loss == pytest.approx(mean / expected.sums.tokens, rel=1e-10)


@pytest.mark.parametrize("log_skipped", [True, False])
def test_a_batch_without_a_supervised_turn_has_no_gradient(log_skipped: bool) -> None:
    both, batch = models(), make_batch(labels=[Label.SKIP])
    loss, gradient = run(both, objective(), batch, log_skipped=log_skipped)
    assert loss.loss == 0.0
    assert loss.z is None
    assert all(p.grad is None for p in both.student.model.parameters())
    assert gradient.abs().max() == 0
    assert all(w == 0 for p in batch for w in p.effective_weights)
    scored = [s.divergence is not None for p in batch for s in p.scores]
    assert all(scored) if log_skipped else not any(scored)
    assert (loss.teacher_tokens > 0) == log_skipped


def test_an_empty_batch_is_harmless() -> None:
    loss, _ = run(models(), objective(), [])
    assert (loss.loss, loss.z, loss.sums.tokens) == (0.0, None, 0.0)


def test_scores_and_effective_weights_of_the_turns() -> None:
    both, batch, rules = models(), make_batch(), objective()
    loss, _ = run(both, rules, batch)
    assert loss.z is not None
    average = 0.0
    for played in batch:
        ids = torch.tensor([played.episode.token_ids])
        with torch.no_grad():
            student = both.student.model(input_ids=ids).logits[0, :, : both.vocabulary].log_softmax(-1)
            teacher = both.teacher.model(input_ids=ids).logits[0, :, : both.vocabulary].log_softmax(-1)
        for turn, decision, turn_score, effective in zip(
            played.episode.turns, played.decisions, played.scores, played.effective_weights, strict=True
        ):
            where = slice(turn.answer_start - 1, turn.answer_end - 1)
            p, q = student[where], teacher[where]
            answer = torch.tensor(played.episode.token_ids[turn.answer_start : turn.answer_end])[:, None]
            expected = {
                "confidence": q.exp().amax(-1).mean(),
                "top1": q.exp().amax(-1).mean(),
                "teacher_entropy": -(q.exp() * q).sum(-1).mean(),
                "teacher_logprob": q.gather(-1, answer).mean(),
                "student_logprob": p.gather(-1, answer).mean(),
                "student_entropy": -(p.exp() * p).sum(-1).mean(),
                "divergence": (p.exp() * (p - q)).sum(-1).mean(),
            }
            for name, value in expected.items():
                assert getattr(turn_score, name) == pytest.approx(float(value), rel=1e-9), name
            assert effective == pytest.approx(loss.z * decision.weight * turn_score.confidence)
            average += effective * turn.n_tokens / loss.sums.tokens
    assert average == pytest.approx(1)
    assert loss.teacher_tokens == sum(p.episode.turns[-1].answer_end - 1 for p in batch)


def test_without_logging_only_supervised_turns_are_scored() -> None:
    both, rules = models(), objective(confidence="none")
    full, lean = make_batch(), make_batch()
    run(both, rules, full)
    run(both, rules, lean, log_skipped=False)
    for a, b in zip(full, lean, strict=True):
        for decision, one, other in zip(a.decisions, a.scores, b.scores, strict=True):
            if decision.weight == 0:
                assert other.divergence is None
                assert other.top1 is None
            else:
                assert other.divergence == pytest.approx(one.divergence, rel=1e-9)
                assert other.confidence == one.confidence


def test_a_turn_without_tokens_counts_for_nothing() -> None:
    both, batch = models(), make_batch()
    turn = batch[3].episode.turns[-1]
    empty = copy.deepcopy(batch)
    cut = empty[3].episode
    cut.token_ids = cut.token_ids[: turn.answer_start]
    cut.turns[-1].answer_end = cut.turns[-1].answer_start
    loss, gradient = run(both, objective(), empty)
    assert loss.sums.tokens == sum(t.n_tokens for p in batch for t in p.episode.turns) - turn.n_tokens
    assert torch.isfinite(gradient).all()
    assert empty[3].scores[-1].confidence is None


def test_a_teacher_with_its_own_template_is_scored_under_it() -> None:
    student, teacher = tiny_lm(1, dtype=torch.float64), tiny_lm(2, dtype=torch.float64)
    same, _ = run(match_models(student, teacher), objective(), make_batch())
    teacher.tokenizer.chat_template = teacher.tokenizer.chat_template.replace("assistant", "helper")
    other = match_models(student, teacher)
    assert other.dialogue is not None
    batch = make_batch()
    loss, _ = run(other, objective(), batch)
    assert loss.loss != pytest.approx(same.loss, rel=1e-6)
    assert loss.sums.tokens == same.sums.tokens

"""The training loop on a small real environment with real tiny models: determinism, resume, parts."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sage.episode import Decision, Episode, Failure, Label, Status
from sage.objective.intervention.base import Always, Judge, JudgeFn, JudgeReply, Never, Stream, TurnContext
from sage.objective.intervention.controls import RateMatched
from sage.policy.models.load import LanguageModel
from sage.policy.seat import Job
from sage.records.ledger import TEACHER
from sage.records.recorder import StepReport
from sage.records.schema import STEPS
from sage.signals import Stopped, stop_on_signals
from sage.teacher.judge import JudgeQuery, TeacherJudge
from sage.training import checkpoint
from sage.training.curriculum import Curriculum
from sage.training.jobs import jobs_of_step
from sage.training.judging import turn_streams
from sage.training.not_ok import TooManyNotOk
from sage.training.optimizer import StudentOptimizer, WeightChange, all_reduce_gradients
from sage.training.parts import Demonstrations
from tests.distill_run import JUDGE, SPEED, STYLE, TRAINER, fresh_models, plain, train
from tests.letters import tasks
from tests.tiny_models import make_episode, tiny_lm

RUN_COLUMNS = {"run", "method", "env", "source", "seed", "step", "time"}


def weights(lm: LanguageModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in lm.model.parameters()]


def assert_equal_weights(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


# --- the whole loop


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("straight")
    return folder, train(folder)


def test_a_run_trains_and_reports(straight: tuple[Path, Any]) -> None:
    _, (summary, reports, _) = straight
    assert (summary.steps, summary.stepped, summary.skipped) == (4, 4, 0)
    assert [r.step for r in reports] == [1, 2, 3, 4]
    assert set(reports[0].row) <= set(STEPS)
    assert set(STEPS) - set(reports[0].row) <= RUN_COLUMNS
    rates = [r.row["learning_rate"] for r in reports]
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3])
    moved = [r.row["relative_weight_change"] for r in reports]
    assert moved == sorted(moved)
    assert moved[0] > 0
    for report in reports:
        row = report.row
        assert row["loss"] > 0
        assert row["grad_norm"] > 0
        assert row["episodes"] == 4
        assert row["turns"] == sum(len(p.decisions) for p in report.batch)
        assert row["z"] * row["mean_weight"] == pytest.approx(1)
        total = sum(
            w * t.n_tokens
            for p in report.batch
            for w, t in zip(p.effective_weights, p.episode.turns, strict=True)
        )
        assert total == pytest.approx(row["student_tokens"])
        for played in report.batch:
            for turn, decision, turn_score in zip(
                played.episode.turns, played.decisions, played.scores, strict=True
            ):
                assert (decision.label is Label.DET_FAIL) == (turn.failure is not Failure.NONE)
                assert turn_score.divergence is not None
    assert sum(r.row["judge_queries"] for r in reports) > 0
    assert all(sum(r.row[f"share_{label}"] for r in reports) > 0 for label in ("det_fail", "skip", "weak"))


def test_the_same_run_twice_is_the_same(straight: tuple[Path, Any], tmp_path: Path) -> None:
    _, (_, reports, both) = straight
    _, again, other = train(tmp_path)
    assert plain(again) == plain(reports)
    assert_equal_weights(weights(both.student), weights(other.student))


def test_skipped_turns_left_out_of_the_records_do_not_change_training(
    straight: tuple[Path, Any], tmp_path: Path
) -> None:
    _, (_, reports, both) = straight
    _, lean, other = train(tmp_path, trainer=TRAINER.model_copy(update={"log_skipped": False}))
    for x, y in zip(weights(both.student), weights(other.student), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
    for full, row in zip(plain(reports), plain(lean), strict=True):
        assert row["loss"] == pytest.approx(full["loss"], rel=1e-5)
        assert row["teacher_tokens"] <= full["teacher_tokens"]
    scored = [(d.weight > 0, s.divergence is not None) for r in lean for p in r.batch
              for d, s in zip(p.decisions, p.scores, strict=True)]  # fmt: skip
    assert all(active == has for active, has in scored)
    assert {active for active, _ in scored} == {True, False}


def test_resuming_gives_what_an_uninterrupted_run_gives(straight: tuple[Path, Any], tmp_path: Path) -> None:
    _, (summary, reports, both) = straight
    speed = SPEED.model_copy(update={"checkpoint_every": 2})

    class Killed(Exception):
        pass

    def die(report: StepReport) -> None:
        torch.rand(3)  # disturbs the global generator
        if report.step == 4:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, speed=speed, on_step=die)
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step-000002"  # type: ignore[union-attr]
    resumed, rest, other = train(tmp_path, speed=speed)
    assert [r.step for r in rest] == [3, 4]
    assert plain(rest) == plain(reports)[2:]
    assert resumed == summary
    assert_equal_weights(weights(both.student), weights(other.student))
    nothing, none, same = train(tmp_path, speed=speed)
    assert (nothing, none) == (summary, [])
    assert_equal_weights(weights(same.student), weights(both.student))


@pytest.mark.parametrize(
    ("place", "kept", "evaluated"),
    [("judging", 2, [2, 3, 4]), ("reporting", 3, [3, 4]), ("evaluating", 3, [3, 4])],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_of_the_last_whole_step(
    straight: tuple[Path, Any], tmp_path: Path, place: str, kept: int, evaluated: list[int], number: int
) -> None:
    """`checkpoint_every` is 0: without the one that the signal brings there would be none."""
    _, (_, reports, both) = straight
    begun = [0]

    def stop(where: str) -> None:
        if where == place and begun[0] == 3:
            os.kill(os.getpid(), number)

    class Watched(TeacherJudge):
        def __call__(self, turns: Sequence[TurnContext]) -> list[JudgeReply]:
            begun[0] += 1
            stop("judging")
            return super().__call__(turns)

    models = fresh_models()
    ask = Watched(models.teacher, STYLE, JudgeQuery(sees_feedback=True, max_new_tokens=4))

    def report(_: StepReport) -> None:
        stop("reporting")

    def evaluate(_: int, last: bool) -> None:
        stop("evaluating")

    with stop_on_signals(), pytest.raises(Stopped) as stopped:
        train(tmp_path, models=models, ask=ask, on_step=report, after_step=evaluate)
    assert stopped.value.exit_code == 128 + number
    assert checkpoint.latest(tmp_path / "checkpoints").name == f"step-{kept:06d}"  # type: ignore[union-attr]
    seen: list[int] = []
    _, rest, other = train(tmp_path, after_step=lambda step, last: seen.append(step))
    assert [r.step for r in rest] == list(range(kept + 1, 5))
    assert seen == evaluated
    assert [r.row["loss"] for r in rest] == [r.row["loss"] for r in reports[kept:]]
    assert_equal_weights(weights(both.student), weights(other.student))


def test_the_checkpoint_is_a_model_directory(straight: tuple[Path, Any]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, (_, _, both) = straight
    path = checkpoint.latest(folder / "checkpoints")
    assert path is not None
    assert path.name == "step-000004"
    loaded = AutoModelForCausalLM.from_pretrained(path / "student")
    assert_equal_weights([p.detach() for p in loaded.parameters()], weights(both.student))
    assert (
        AutoTokenizer.from_pretrained(path / "student").chat_template == both.student.tokenizer.chat_template
    )


def test_a_checkpoint_of_other_beginnings_is_refused(straight: tuple[Path, Any]) -> None:
    folder, _ = straight
    other = fresh_models()
    with torch.no_grad():
        next(other.student.model.parameters()).mul_(1.5)
    with pytest.raises(ValueError, match="began with other student weights"):
        train(folder, models=other)


def test_a_half_written_checkpoint_is_never_seen(straight: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / ".partial-000009-1").mkdir()
    assert checkpoint.latest(tmp_path) is None
    path = checkpoint.save(tmp_path, 3, fresh_models().student, {"stepped": 3})
    assert checkpoint.latest(tmp_path) == path
    newer = checkpoint.save(tmp_path, 10, fresh_models().student, {"stepped": 10})
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, newer.name]


def test_a_step_in_which_every_turn_is_skipped_does_not_step(tmp_path: Path) -> None:
    both = fresh_models()
    before = weights(both.student)
    trainer = TRAINER.model_copy(update={"steps": 2})
    seen: list[tuple[int, bool]] = []
    summary, reports, _ = train(
        tmp_path,
        models=both,
        trainer=trainer,
        intervention=Never(name="never"),
        after_step=lambda step, last: seen.append((step, last)),
    )
    assert (summary.steps, summary.stepped, summary.skipped) == (2, 0, 2)
    assert seen == [(1, False), (2, True)]
    assert_equal_weights(before, weights(both.student))
    for report in reports:
        row = report.row
        assert (row["loss"], row["stepped"], row["z"], row["grad_norm"]) == (0.0, False, None, None)
        assert row["learning_rate"] == pytest.approx(0.5e-3)  # the warm-up waits
        assert row["relative_weight_change"] == 0
        assert row["mean_divergence"] > 0
        assert row["active_tokens"] == 0


def test_one_skipped_step_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    """The judge skips all of step 2: weights after it are those of step 1."""
    both = fresh_models()
    calls: list[int] = []

    def ask(contexts: Sequence[TurnContext]) -> list[JudgeReply]:
        calls.append(len(contexts))
        label = Label.SKIP if len(calls) == 2 else Label.STRONG
        return [JudgeReply(label, label) for _ in contexts]

    class OnlyJudge(Judge):
        def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
            return [Decision(r.label, self.weight(r.label)) for r in ask(turns)]  # type: ignore[arg-type]

    rule = OnlyJudge(name="judge", weak_weight=0.5, sees_feedback=True, max_new_tokens=4)
    after: list[list[torch.Tensor]] = []
    trainer = TRAINER.model_copy(update={"steps": 3})
    summary, reports, _ = train(
        tmp_path,
        models=both,
        trainer=trainer,
        intervention=rule,
        ask=ask,
        after_step=lambda *_: after.append(weights(both.student)),
    )
    assert summary.skipped == 1
    assert [r.row["stepped"] for r in reports] == [True, False, True]
    assert_equal_weights(after[0], after[1])
    assert not torch.equal(after[1][0], after[2][0])


def test_broken_episodes_are_reported_and_left_out(tmp_path: Path) -> None:
    broken, trainer = tasks(4, broken=(0, 2)), TRAINER.model_copy(update={"steps": 1})
    always = Always(name="always")
    _, (report,), _ = train(tmp_path / "a", trainer=trainer, chosen=broken, intervention=always)
    assert (report.row["episodes"], report.row["episodes_not_ok"]) == (2, 2)
    assert len(report.batch) == 4
    for played in report.batch:
        assert bool(played.decisions) == played.episode.status.is_ok
    only_good = [t for t in broken if t.path != "broken"]
    trainer = trainer.model_copy(update={"tasks_per_step": 2})
    _, (good,), _ = train(tmp_path / "b", trainer=trainer, chosen=only_good, intervention=always)
    assert good.row["loss"] == pytest.approx(report.row["loss"], rel=1e-5)
    all_broken = tasks(4, broken=(0, 1, 2, 3))
    summary, (nothing,), _ = train(tmp_path / "c", trainer=trainer, chosen=all_broken)
    assert summary.skipped == 1
    assert (nothing.row["loss"], nothing.row["student_tokens"], nothing.row["success_rate"]) == (0.0, 0, None)


def test_a_step_with_too_many_broken_episodes_is_not_made(tmp_path: Path) -> None:
    trainer = TRAINER.model_copy(update={"steps": 1})
    both, reports = fresh_models(), list[StepReport]()
    before = weights(both.student)
    with pytest.raises(
        TooManyNotOk, match=r"^1 of 4 episodes of training step 1 are not ok.*env_error"
    ) as caught:
        train(
            tmp_path,
            models=both,
            trainer=trainer,
            chosen=tasks(4, broken=(2,)),
            on_step=reports.append,
            max_not_ok=0.2,
        )
    assert reports == []
    assert_equal_weights(before, weights(both.student))
    assert (caught.value.step, len(caught.value.episodes)) == (0, 4)
    _, (report,), _ = train(tmp_path, trainer=trainer, chosen=tasks(4, broken=(2,)), max_not_ok=0.25)
    assert report.row["episodes_not_ok"] == 1


def test_the_curriculum_limits_the_turns(tmp_path: Path) -> None:
    class Growing(Curriculum):
        def turn_limit(self, step: int, turn_budget: int) -> int:
            return min(step, turn_budget)

    trainer = TRAINER.model_copy(update={"steps": 2})
    _, reports, _ = train(tmp_path, trainer=trainer, curriculum=Growing(name="growing"))
    assert [max(len(p.episode.turns) for p in r.batch) for r in reports] == [1, 2]


# --- the parts


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / a.norm())


def test_jobs_walk_through_shuffled_epochs() -> None:
    chosen = tasks(5)
    jobs = [job for step in range(1, 6) for job in jobs_of_step(chosen, step, 3, 2, seed=7)]
    ids = [(job.task.id, job.rollout_index) for job in jobs]
    assert len(set(ids)) == len(ids) == 30
    for epoch in range(3):
        part = ids[10 * epoch : 10 * epoch + 10]
        assert sorted(part) == sorted((t.id, 2 * epoch + r) for t in chosen for r in range(2))
    assert jobs_of_step(chosen, 2, 3, 2, seed=7) == jobs[6:12]
    assert jobs_of_step(chosen, 1, 5, 1, seed=7) != jobs_of_step(chosen, 1, 5, 1, seed=8)
    with pytest.raises(ValueError, match="no task"):
        jobs_of_step([], 1, 1, 1, seed=0)


def test_turn_streams_depend_on_the_turn_alone() -> None:
    episodes = [make_episode(n, 2) for n in range(2)]
    contexts = [TurnContext(e, t) for e in episodes for t in e.turns]
    first = [turn_streams(0, 1)(c).random() for c in contexts]
    assert [turn_streams(0, 1)(c).random() for c in reversed(contexts)] == first[::-1]
    assert len(set(first)) == 4
    assert turn_streams(0, 2)(contexts[0]).random() != first[0]
    assert turn_streams(1, 1)(contexts[0]).random() != first[0]


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimizer = StudentOptimizer(model, TRAINER)
    decaying, free = optimizer.optimizer.param_groups
    assert [p.shape for p in decaying["params"]] == [(3, 3)]
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(free["params"]) == 3


def test_the_gradient_is_clipped_and_its_norm_reported() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = StudentOptimizer(model, TRAINER)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    seen: list[torch.Tensor] = []
    optimizer.optimizer.register_step_pre_hook(lambda *_: seen.append(model.weight.grad.clone()))  # type: ignore[union-attr]
    assert optimizer.step() == pytest.approx(5.0)
    assert float(seen[0].norm()) == pytest.approx(1.0, rel=1e-5)
    assert model.weight.grad is None


def test_a_gradient_that_is_not_finite_stops_before_anything_changes() -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    optimizer = StudentOptimizer(model, TRAINER)
    model.weight.grad = torch.tensor([[float("nan"), 1.0]])
    with pytest.raises(FloatingPointError, match="not finite"):
        optimizer.step()
    assert torch.equal(model.weight, before)


def test_half_precision_weights_keep_updates_too_small_for_them() -> None:
    trainer = TRAINER.model_copy(update={"learning_rate": 1e-4, "warmup_steps": 0, "weight_decay": 0.0})
    half, full = nn.Linear(8, 8).bfloat16(), nn.Linear(8, 8)
    with torch.no_grad():
        for p, q in zip(half.parameters(), full.parameters(), strict=True):
            p.fill_(1.0)
            q.fill_(1.0)
    optimizers = [StudentOptimizer(m, trainer) for m in (half, full)]
    for _ in range(60):
        for model, optimizer in zip((half, full), optimizers, strict=True):
            for p in model.parameters():
                p.grad = torch.ones_like(p)
            optimizer.step()
    assert full.weight[0, 0].item() == pytest.approx(1 - 60e-4, rel=1e-4)
    assert half.weight[0, 0].item() == pytest.approx(1 - 60e-4, rel=4e-3)
    assert half.weight[0, 0].item() < 1
    copy = nn.Linear(8, 8).bfloat16()
    copy.load_state_dict(half.state_dict())
    other = StudentOptimizer(copy, trainer)
    other.load_state_dict(optimizers[0].state_dict())
    assert torch.equal(other.masters[0], optimizers[0].masters[0])


def test_missing_gradients_count_as_zero_when_they_are_added_up() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    a.grad = torch.tensor([1.0, 2.0, 3.0])
    all_reduce_gradients([a, b], lambda flat: flat * 2)
    assert a.grad.tolist() == [2, 4, 6]
    assert b.grad is not None
    assert b.grad.tolist() == [[0, 0], [0, 0]]


def test_weight_change_by_hand() -> None:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    change = WeightChange(model)
    assert change.value() == 0
    with torch.no_grad():
        model.weight.add_(torch.tensor([[0.3, 0.4]]))
    assert change.value() == pytest.approx(0.1, rel=1e-6)
    assert change.start_norm == pytest.approx(5)


def test_the_random_state_comes_back() -> None:
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    state = checkpoint.random_state()
    first = draw()
    checkpoint.set_random_state(state)
    assert draw() == first


def test_a_tiny_model_learns_its_teacher(tmp_path: Path) -> None:
    """Standard OPD brings the student's distribution to the teacher's."""
    both = fresh_models()
    trainer = TRAINER.model_copy(update={"steps": 12, "learning_rate": 1e-2, "warmup_steps": 0})
    _, reports, _ = train(tmp_path, models=both, trainer=trainer, intervention=Always(name="always"))
    losses = [r.row["loss"] for r in reports]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_tiny_lm_is_random_but_fixed() -> None:
    assert tiny_lm(1).digest == tiny_lm(1).digest != tiny_lm(2).digest


def teacher_cost(report: StepReport) -> int:
    return sum(report.row[column] for column in TEACHER.values())


def test_training_ends_with_the_step_that_spends_the_teachers_budget(
    straight: tuple[Path, Any], tmp_path: Path
) -> None:
    _, (_, reports, _) = straight
    first, second = (teacher_cost(report) for report in reports[:2])
    seen: list[tuple[int, bool]] = []
    trainer = TRAINER.model_copy(update={"steps": 50, "teacher_budget": first + 1})
    summary, spent, both = train(
        tmp_path, trainer=trainer, after_step=lambda step, last: seen.append((step, last))
    )
    assert (summary.steps, summary.teacher_tokens) == (2, first + second)
    assert plain(spent) == plain(reports)[:2]
    assert seen == [(1, False), (2, True)]
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step-000002"  # type: ignore[union-attr]
    # Started again it knows what is spent, and does nothing.
    again, nothing, same = train(tmp_path, trainer=trainer)
    assert (again, nothing) == (summary, [])
    assert_equal_weights(weights(same.student), weights(both.student))


def test_a_resumed_run_counts_what_was_spent_before(straight: tuple[Path, Any], tmp_path: Path) -> None:
    _, (_, reports, _) = straight
    costs = [teacher_cost(report) for report in reports]
    short = TRAINER.model_copy(update={"steps": 1})
    train(tmp_path, trainer=short)
    trainer = TRAINER.model_copy(update={"steps": 50, "teacher_budget": sum(costs[:3])})
    summary, rest, _ = train(tmp_path, trainer=trainer)
    assert [report.step for report in rest] == [2, 3]
    assert summary.teacher_tokens == sum(costs[:3])


def demonstrations_of(weight: float, won: bool = True) -> Demonstrations:
    """Demonstrations of random ids."""

    def play(jobs: Sequence[Job]) -> list[Episode]:
        status = Status.WON if won else Status.TURN_BUDGET
        episodes = [make_episode(int(job.task.id[1:]), 2, status=status) for job in jobs]
        return [replace(episode, teacher_tokens=11) for episode in episodes]

    return Demonstrations(play, weight)


def test_demonstrations_add_their_cross_entropy(tmp_path: Path) -> None:
    """Nothing else moves the student here: the gradient is λ times that of the dense mean of −log p."""
    both, weight = fresh_models(), 0.25
    gradients: list[torch.Tensor] = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parts = [p.grad for p in both.student.model.parameters() if p.grad is not None]
        gradients.append(torch.cat([p.flatten() for p in parts]))

    trainer = TRAINER.model_copy(update={"steps": 1, "clip_norm": 1e9})
    hook = register_optimizer_step_pre_hook(keep)
    passes: list[tuple[list[list[int]], bool]] = []

    def listen(_module: torch.nn.Module, _args: tuple[object, ...], kwargs: dict[str, torch.Tensor]) -> None:
        passes.append((kwargs["input_ids"].tolist(), torch.is_grad_enabled()))

    reference = copy.deepcopy(both.student.model)
    both.student.model.base_model.register_forward_pre_hook(listen, with_kwargs=True)
    summary, (report,), _ = train(
        tmp_path,
        models=both,
        trainer=trainer,
        intervention=Never(name="never"),
        demonstrations=demonstrations_of(weight),
    )
    hook.remove()
    played = [p.episode for p in report.batch]
    episodes = demonstrations_of(weight).play([Job(e.task, e.rollout_index) for e in played])
    total, tokens = torch.zeros(()), 0
    for episode in episodes:
        logp = reference(input_ids=torch.tensor([episode.token_ids])).logits[0, :, : both.vocabulary]
        for turn in episode.turns:
            answer = torch.tensor(episode.token_ids[turn.answer_start : turn.answer_end])
            where = slice(turn.answer_start - 1, turn.answer_end - 1)
            total = total + torch.nn.functional.cross_entropy(logp[where], answer, reduction="sum")
            tokens += turn.n_tokens
    # Each is read once, to learn from it: nobody asks what the student thinks of what it imitates.
    beginnings = [episode.token_ids[:8] for episode in episodes]
    read = [grad for rows, grad in passes for row in rows if row[:8] in beginnings]
    assert read == [True] * len(episodes)
    loss = weight * total / tokens
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None])
    assert relative(gradients[0], expected) < 1e-4
    assert report.row["demonstration_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert report.row["demonstration_tokens"] == tokens
    assert report.row["teacher_play_tokens"] == 11 * len(episodes)
    assert (report.row["loss"], report.row["stepped"], summary.stepped) == (0.0, True, 1)


def test_demonstrations_that_are_lost_teach_nothing(tmp_path: Path) -> None:
    trainer = TRAINER.model_copy(update={"steps": 1})
    never = Never(name="never")
    _, (report,), _ = train(
        tmp_path, trainer=trainer, intervention=never, demonstrations=demonstrations_of(1.0, won=False)
    )
    shown = (report.row["demonstration_tokens"], report.row["demonstration_loss"])
    assert (shown, report.row["stepped"]) == ((0, 0.0), False)


def broken_demonstrations(count: int) -> Demonstrations:
    """Demonstrations of which the first `count` of a step broke."""
    plain = demonstrations_of(1.0)

    def play(jobs: Sequence[Job]) -> list[Episode]:
        episodes = plain.play(jobs)
        for episode in episodes[:count]:
            episode.status, episode.error = Status.ENV_ERROR, "the kitchen fell silent"
        return episodes

    return Demonstrations(play, 1.0)


def test_demonstrations_that_broke_are_counted_and_teach_nothing(tmp_path: Path) -> None:
    trainer = TRAINER.model_copy(update={"steps": 1})
    never = Never(name="never")
    _, (whole,), _ = train(
        tmp_path / "a", trainer=trainer, intervention=never, demonstrations=demonstrations_of(1.0)
    )
    _, (report,), _ = train(
        tmp_path / "b", trainer=trainer, intervention=never, demonstrations=broken_demonstrations(1)
    )
    assert (whole.row["demonstration_not_ok"], report.row["demonstration_not_ok"]) == (0, 1)
    assert 0 < report.row["demonstration_tokens"] < whole.row["demonstration_tokens"]


def test_too_many_demonstrations_that_broke_fail_the_step(tmp_path: Path) -> None:
    trainer = TRAINER.model_copy(update={"steps": 1})
    never = Never(name="never")
    with pytest.raises(TooManyNotOk, match=r"demonstrations of training step 1 .*fell silent") as caught:
        train(
            tmp_path,
            trainer=trainer,
            intervention=never,
            demonstrations=broken_demonstrations(1),
            max_not_ok=0.05,
        )
    assert caught.value.step == 0


def test_a_rule_that_learns_goes_on_where_it_was(tmp_path: Path) -> None:
    """Running rates, interrupted after a checkpoint, decide as they would have without the interruption."""

    def rule() -> RateMatched:
        return RateMatched(name="rate_matched", rule=JUDGE, weak_weight=0.5, by_turn=True)

    _, whole, both = train(tmp_path / "whole", intervention=rule())
    train(tmp_path / "cut", intervention=rule(), trainer=TRAINER.model_copy(update={"steps": 2}))
    _, rest, other = train(tmp_path / "cut", intervention=rule())
    assert plain(rest) == plain(whole)[2:]
    assert_equal_weights(weights(both.student), weights(other.student))

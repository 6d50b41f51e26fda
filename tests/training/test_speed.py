"""Operations against torch's own counter, bytes against the weights, memory against what was taken."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sage.config.load import load
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.generate import Decoder, answers
from sage.policy.models.hidden_states import hidden_states
from sage.policy.models.work import backbone_operations, decoding_bytes
from sage.records.clock import PhaseClock, Work, phase, tally
from sage.teacher.score import own_view, score
from sage.training.batch import match_models
from sage.training.speed import matrix_rate, memory_rate, peak_of, speed_columns
from tests.tiny_models import make_episode, tiny_lm


def counted(work) -> float:  # type: ignore[no-untyped-def]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return float(counter.get_total_flops())


@pytest.mark.parametrize("length", [7, 90])
def test_operations_of_a_forward_are_those_that_torch_counts(length: int) -> None:
    lm = tiny_lm(1)
    ids = list(range(1, length + 1))
    with torch.no_grad():
        ours = backbone_operations(lm, [length])
        theirs = counted(lambda: hidden_states(lm, [ids], [[length - 1]]))
    config = lm.model.config
    # torch counts attention whole; causal attention is half of it.
    half = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length**2
    assert ours == theirs - half


def test_a_gradient_takes_three_times_as_many_and_frozen_weights_save_their_share() -> None:
    lm = tiny_lm(1)
    with torch.no_grad():
        forward = backbone_operations(lm, [10, 20])
    assert backbone_operations(lm, [10, 20]) == pytest.approx(3 * forward)
    for p in lm.model.parameters():
        p.requires_grad_(False)
    assert backbone_operations(lm, [10, 20]) == pytest.approx(2 * forward)


def test_what_is_done_in_a_phase_is_counted_there() -> None:
    lm = tiny_lm(1)
    view = own_view(make_episode(1, 2))
    with PhaseClock().running() as clock:
        with phase("teacher"):
            score(lm, [view], [[0, 1]], vocabulary=lm.vocabulary, temperature=1.0)
        with phase("rollout"):
            decoder = Decoder(lm, 1, engine="packed")
            (said,) = answers(decoder, [[5, 6, 7]], Sampling(0.0, 1.0, 4), None, [64])
        done = clock.take_work()
        assert clock.take_work()["teacher"] == Work()
    tokens = sum(end - start for start, end in view.spans)
    with torch.no_grad():
        layers = backbone_operations(lm, [view.spans[-1][1] - 1])
    head = 2 * lm.vocabulary * lm.model.config.hidden_size * tokens
    assert done["teacher"].operations == pytest.approx(layers + head)
    weights, cached = decoding_bytes(lm)
    assert weights == sum(p.numel() * 4 for p in lm.model.parameters())
    forwards = len(said.ids)
    assert done["rollout"].read == forwards * weights + cached * sum(range(3, 3 + forwards))
    assert done["student"] == Work()


def test_memory_is_the_most_of_its_own_phase() -> None:
    peak = peak_of(torch.device("cpu"))
    if peak is None:
        pytest.skip("this system does not tell")
    clock = PhaseClock()
    with clock.running():
        clock.watch(peak)
        with phase("teacher"):
            torch.ones(2**26)  # 256 MiB that are given back
        with phase("student"):
            pass
    work = clock.take_work()
    assert work["teacher"].peak - work["student"].peak > 200 * 2**20
    assert work["judge"].peak == 0


def test_shares_are_of_what_is_set_or_else_measured() -> None:
    models = match_models(tiny_lm(1), tiny_lm(2))
    seconds = {f"seconds_{name}": 2.0 for name in ("rollout", "judge", "teacher", "student")}
    row = {"student_tokens": 10, "judge_tokens": 0, "teacher_tokens": 40} | seconds
    work = {name: Work() for name in ("rollout", "judge", "teacher", "student")}
    work["teacher"] = Work(operations=6e9, peak=2**31)
    work["rollout"] = Work(read=3e9)
    set_ = load(["speed.matrix_rate=1e10", "speed.memory_rate=1e10"]).speed
    found = speed_columns(row, work, models, set_)
    assert found["speed_matrix_teacher"] == pytest.approx(0.3)
    assert found["speed_memory_rollout"] == pytest.approx(0.15)
    assert found["speed_tokens_student"] == 5.0
    assert found["speed_tokens_judge"] is None
    assert found["speed_matrix_student"] is None
    assert found["speed_peak_teacher"] == 2.0
    cpu = torch.device("cpu")
    found = speed_columns(row, work, models, load([]).speed)
    assert found["speed_matrix_teacher"] == pytest.approx(3e9 / matrix_rate(cpu, torch.float32))
    assert found["speed_memory_rollout"] == pytest.approx(1.5e9 / memory_rate(cpu))


def test_without_a_clock_nothing_is_counted() -> None:
    tally(operations=5.0)
    with PhaseClock().running() as clock:
        assert all(work == Work() for work in clock.take_work().values())

"""Memory that does not suffice outside of play, and numbers that are none: the run fails, with a sentence."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from sage.check.page import Line, Page, fine
from sage.config.load import load
from sage.episode import Decision, Label
from sage.errors import LONGEST, NotFinite, OutOfMemory, is_out_of_memory
from sage.launch.execute import Outcome, execute
from sage.objective.confidence.base import Top1
from sage.objective.divergence.base import ReverseKL
from sage.objective.normalization import AllToken
from sage.policy.decoding.engine import right_engine
from sage.policy.models.hidden_states import training_error
from sage.policy.models.load import LanguageModel, load_model
from sage.training.batch import Models, TrainingEpisode, match_models
from sage.training.gradient import Objective, accumulate_gradient
from sage.training.setup import shorter_context
from tests.test_run import SMALL
from tests.tiny_models import byte_tokenizer, make_episode, tiny_lm

RULES = Objective(
    Top1(name="top1", per="turn", teacher_temperature=1.0),
    AllToken(name="all_token", scope="batch", epsilon=1e-8, z_max=None),
    ReverseKL(name="reverse_kl"),
)
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))


def breaking(lm: LanguageModel, error: Exception, on: Callable[[torch.Tensor], bool]) -> LanguageModel:
    """A copy whose embedding raises where `on` says so of the ids of a forward."""
    model = copy.deepcopy(lm.model)

    def check(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if on(inputs[0]):
            raise error

    model.get_input_embeddings().register_forward_pre_hook(check)
    return replace(lm, model=model)


def batch() -> list[TrainingEpisode]:
    return [TrainingEpisode(make_episode(i, 3), [Decision(Label.ALWAYS, 1.0)] * 3) for i in range(3)]


@pytest.mark.parametrize("error", ERRORS)
def test_too_little_memory_is_known_in_every_form(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("shape"), OSError(28, "full")])
def test_another_error_is_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", ERRORS[:5])
@pytest.mark.parametrize(("micro_batch", "way"), [(2, "lower speed.micro_batch (now 2)"), (1, "max_context")])
def test_a_pass_that_does_not_fit_says_which_and_what_to_lower(
    error: Exception, micro_batch: int, way: str
) -> None:
    both = match_models(tiny_lm(1), tiny_lm(2, hidden=48))
    teacher, student = (breaking(lm, error, lambda ids: True) for lm in (both.teacher, both.student))
    for broken, what in (
        (replace(both, teacher=teacher), "the teacher's scoring pass"),
        (replace(both, student=student), "the student's training pass"),
    ):
        with pytest.raises(OutOfMemory) as caught:
            accumulate_gradient(broken, RULES, batch(), micro_batch=micro_batch)
        sentence = str(caught.value)
        assert what in sentence
        assert way in sentence
        assert len(sentence) <= LONGEST


def poisoned(lm: LanguageModel, number: float) -> LanguageModel:
    """A copy whose output layer gives `number` for one token everywhere."""
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = number
    return replace(lm, model=model)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_teacher_that_gives_no_numbers_scores_nothing(number: float) -> None:
    """NaN would mean further on that the teacher was not asked."""
    both = match_models(tiny_lm(1), tiny_lm(2, hidden=48, tie=False))
    broken = replace(both, teacher=poisoned(both.teacher, number))
    weights = (Decision(Label.SKIP, 0.0), Decision(Label.ALWAYS, 1.0))
    for decision in weights:
        played = [TrainingEpisode(make_episode(0, 3), [decision] * 3)]
        with pytest.raises(NotFinite, match="'tiny-2' are not finite"):
            accumulate_gradient(broken, RULES, played, micro_batch=1)


def test_a_loss_that_is_no_number_is_none() -> None:
    both = match_models(tiny_lm(1, tie=False), tiny_lm(2, hidden=48))
    broken = replace(both, student=poisoned(both.student, math.nan))
    with pytest.raises(NotFinite, match="The loss of the batch is nan"):
        accumulate_gradient(broken, RULES, batch(), micro_batch=2)


def windowed() -> LanguageModel:
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        sliding_window=60,
    )
    return LanguageModel(Gemma3ForCausalLM(config).eval(), tokenizer, "windowed", "", torch.device("cpu"))


def test_too_little_memory_for_a_long_comparison_narrows_the_window() -> None:
    lm = breaking(windowed(), ERRORS[0], lambda ids: ids.shape[-1] > 50)
    report = training_error(lm)
    assert (report.equal, report.narrowed, report.length) == (True, True, 48)
    assert right_engine(lm) == "hf"


@pytest.mark.parametrize("compare", [training_error, right_engine])
@pytest.mark.parametrize("error", [ERRORS[1], MemoryError()])
def test_too_little_memory_says_nothing_about_an_engine(
    compare: Callable[[LanguageModel], Any], error: Exception
) -> None:
    lm = breaking(tiny_lm(3), error, lambda ids: True)
    with pytest.raises(OutOfMemory, match="in the comparison of 'tiny-3' with its plain forward"):
        compare(lm)


def test_the_page_about_a_pair_says_that_the_memory_does_not_suffice() -> None:
    said: list[str] = []
    page = Page(said.append)

    def part() -> Iterator[Line]:
        yield fine(right_engine(breaking(tiny_lm(3), ERRORS[0], lambda ids: True)))

    assert not page.part("Engine", part)
    page_text = " ".join("".join(said).split())
    assert page_text.startswith("Engine refused Out of memory in the comparison of 'tiny-3'")


def trained(tmp_path: Path, *overrides: str) -> Outcome:
    config = [*SMALL, "method=opd", "evaluation.before=false", f"launch.runs_dir={tmp_path}", *overrides]
    return execute(load(config), export=False)


def test_a_training_pass_that_does_not_fit_fails_the_run_and_a_smaller_one_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second step's gradient does not fit with two episodes side by side."""
    steps = []

    def broken(*arguments: Any, **named: Any) -> LanguageModel:
        lm = load_model(*arguments, **named)

        def on(ids: torch.Tensor) -> bool:
            if torch.is_grad_enabled() and ids.ndim == 2:
                steps.append(len(ids))
                return len(steps) > 2 and len(ids) > 1
            return False

        return breaking(lm, ERRORS[0], on)

    monkeypatch.setattr("sage.training.setup.load_model", broken)
    failed = trained(tmp_path, "speed.micro_batch=2")
    assert (failed.state, failed.exit_code) == ("failed", 1)
    assert failed.reason.startswith("Out of memory in the student's training pass (CUDA out of memory.")
    assert "lower speed.micro_batch (now 2)" in failed.reason
    assert "Traceback" not in capsys.readouterr().err
    assert failed.folder is not None
    assert "Traceback" in (failed.folder / "log.txt").read_text(encoding="utf-8")

    again = trained(tmp_path, "speed.micro_batch=1")
    assert (again.state, again.folder, again.run) == ("done", failed.folder, failed.run)


def test_a_model_that_does_not_reach_max_context_shortens_episodes_and_that_is_said() -> None:
    student, teacher = tiny_lm(1), tiny_lm(2)
    models = Models(student, teacher, len(student.tokenizer), None)
    said = shorter_context(load(["rollout.max_context=9000"]), student, models)
    assert said == (
        "rollout.max_context is 9,000, and the student reaches 4,096 tokens and the teacher reaches 4,096 "
        "tokens: training episodes end context_full at 4,096, evaluations at 4,096."
    )
    teacher.model.config.max_position_embeddings = 600
    said = shorter_context(load(["rollout.max_context=4096"]), student, models)
    assert said == (
        "rollout.max_context is 4,096, and the teacher reaches 600 tokens: "
        "training episodes end context_full at 600."
    )
    assert shorter_context(load(["rollout.max_context=600"]), student, models) == ""

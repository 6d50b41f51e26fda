"""How the models are read in a step's passes changes no loss and no gradient, and what it costs is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sage.config.load import load
from sage.errors import ModelError
from sage.objective.chunked import Chunking
from sage.objective.compiled import Compiled
from sage.objective.elementwise import at_chunk
from sage.policy.models.hidden_states import hidden_states
from sage.policy.models.load import LanguageModel
from sage.training.batch import Models, groups_of
from sage.training.gradient import BatchLoss
from sage.training.passes import PLAIN, Passes, passes_of, prepare
from tests.families import family
from tests.tiny_models import tiny_lm
from tests.training.test_gradient import make_batch, models, objective, run


def differentiated(passes: Passes) -> tuple[BatchLoss, torch.Tensor]:
    """Loss and gradient of a batch of unlike episodes."""
    return run(replace(models(), passes=passes), objective(), make_batch(), micro_batch=3)


def assert_same(got: tuple[BatchLoss, torch.Tensor], want: tuple[BatchLoss, torch.Tensor]) -> None:
    assert got[0].loss == pytest.approx(want[0].loss, rel=1e-5)
    assert float(want[1].norm()) > 0
    torch.testing.assert_close(got[1], want[1], rtol=1e-5, atol=1e-5 * float(want[1].abs().max()))


@pytest.mark.parametrize(
    "chunking",
    [Chunking(4), Chunking(1), Chunking(6, Compiled(lambda line: None, rows=6, backend="aot_eager"))],
    ids=["of 4", "of 1", "traced"],
)
def test_chunks_of_any_size_give_the_loss_and_its_gradient(chunking: Chunking) -> None:
    assert_same(differentiated(Passes(chunking)), differentiated(PLAIN))


def test_on_a_cpu_nothing_is_compiled_unless_asked_for() -> None:
    lm, said = tiny_lm(0), []
    plain = passes_of(load([]).speed, lm, 50, said.append)
    assert (plain.chunking.most, plain.chunking.elementwise) == (0, at_chunk)
    asked = passes_of(load(["speed.compile_loss=true", "speed.loss_chunk=9"]).speed, lm, 50, said.append)
    assert asked.chunking.most == 9
    assert isinstance(asked.chunking.elementwise, Compiled)
    assert not said


def read_as(packs: bool, recomputes: bool, teacher_packs: bool = True) -> Models:
    both = models()
    both.student.packs, both.student.recomputes = packs, recomputes
    assert isinstance(both.teacher, LanguageModel)
    assert both.reference is not None
    both.teacher.packs = both.reference.packs = packs and teacher_packs
    return both


@pytest.mark.parametrize(("packs", "recomputes"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_packed_or_computed_again_the_loss_and_its_gradient_stay(
    packs: bool, recomputes: bool, micro_batch: int
) -> None:
    rules, want = objective(), differentiated(PLAIN)
    assert_same(run(read_as(packs, recomputes), rules, make_batch(), micro_batch=micro_batch), want)


def test_a_packed_pass_holds_the_tokens_of_the_longest_episodes() -> None:
    batch = make_batch(12)
    lengths = [len(sample.episode.token_ids) for sample in batch]
    groups = groups_of(batch, 2, read_as(True, False))
    tokens = [sum(len(sample.episode.token_ids) for sample in group) for group in groups]
    assert sum(tokens) == sum(lengths)
    assert max(tokens) <= 2 * max(lengths)
    assert max(map(len, groups)) > 2
    longer = groups_of(batch, 2, replace(read_as(True, False), passes=Passes(tokens=10_000)))
    assert list(map(len, longer)) == [12]
    assert groups_of([], 2, read_as(True, False)) == []


def test_beside_a_teacher_that_pads_its_rectangle_is_bounded() -> None:
    batch = make_batch(30)
    longest = max(len(sample.episode.token_ids) for sample in batch)
    groups = groups_of(batch, 1, read_as(True, False, teacher_packs=False))
    assert max(len(group) * len(group[0].episode.token_ids) for group in groups) <= 2 * longest
    alone = groups_of(batch, 1, read_as(True, False))
    assert len(alone) <= len(groups)
    rules, want = objective(), run(models(), objective(), make_batch(), micro_batch=3)
    assert_same(run(read_as(True, True, teacher_packs=False), rules, make_batch(), micro_batch=1), want)


def test_on_a_cpu_nothing_is_packed_or_computed_again_unless_asked_for() -> None:
    student, teacher, said = tiny_lm(0), tiny_lm(1), []
    prepare(load([]).speed, student, [teacher], said.append)
    assert not any((student.packs, student.recomputes, teacher.packs, said))
    words = ["speed.packing=true", "speed.gradient_checkpointing=true"]
    prepare(load(words).speed, student, [teacher], said.append)
    assert student.packs
    assert student.recomputes
    assert teacher.packs
    assert not teacher.recomputes
    assert not said


@pytest.mark.parametrize("name", ["Qwen3.5", "LFM2", "Gemma 3"])
def test_a_family_that_cannot_be_packed_is_refused_where_it_is_asked_for(name: str) -> None:
    student, said = family(name), []
    with pytest.raises(ModelError, match=r"speed\.packing=true is not right for the student \(.* is none of"):
        prepare(load(["speed.packing=true"]).speed, student, [], said.append)
    assert not student.packs


def test_a_teacher_that_cannot_be_packed_pads_and_that_is_said() -> None:
    student, teacher, said = tiny_lm(0), family("Gemma 3"), []
    prepare(load(["speed.packing=true"]).speed, student, [teacher], said.append)
    assert student.packs
    assert not teacher.packs
    assert "reads padded episodes: it cannot be packed (Gemma3ForCausalLM is none of" in said[0]


@pytest.mark.parametrize("name", ["Qwen3.5", "LFM2", "Gemma 3", "Qwen3-MoE"])
def test_layers_of_any_family_are_computed_again_alike(name: str) -> None:
    lm, gradients = family(name), []
    for recomputes in (False, True):
        lm.recomputes = recomputes
        lm.model.zero_grad(set_to_none=True)
        hidden_states(lm, [[5, 9, 7, 30] * 9, [8, 4]], [[3, 35], [1]]).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in lm.model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5 * float(gradients[0].abs().max()))

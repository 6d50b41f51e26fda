"""Student, teacher and reference on devices of their own: nothing mixes, and the numbers are those of one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sage.config.components import conf_dir
from sage.config.load import load
from sage.training.batch import Models
from sage.training.gradient import Objective
from sage.training.optimizer import WeightChange
from tests.training.test_gradient import flat_gradient, make_batch, models, run
from tests.two_devices import ELSEWHERE, HOME, THERE, Mixed, Places

DIVERGENCES = sorted(path.stem for path in (conf_dir() / "divergence").glob("*.yaml"))
CHUNK = 3


def rules_of(*overrides: str) -> Objective:
    config = load(list(overrides))
    return Objective(config.confidence, config.normalization, config.divergence)


def spread(
    both: Models, places: Places, student: torch.device, teacher: torch.device, reference: torch.device
) -> Models:
    """The pair with each model said to be on its device."""
    moved = {}
    for role, place in (("student", student), ("teacher", teacher), ("reference", reference)):
        lm = getattr(both, role)
        places.put(lm.model, place)
        moved[role] = replace(lm, device=place)
    return replace(both, **moved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_how_far_the_weights_moved_is_computed_where_they_are(dtype: torch.dtype) -> None:
    model = models(dtype).student.model
    with Places() as places:
        places.put(model, THERE)
        change = WeightChange(model)
        places.crossed.clear()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01)
        moved = change.value()
    numbers = sum(p.numel() for p in model.parameters())
    assert places.crossed[str(HOME), str(THERE)] == numbers
    assert places.crossed[str(THERE), str(HOME)] <= len(list(model.parameters()))
    plain = models(dtype).student.model
    before = [p.detach().double() for p in plain.parameters()]
    apart = [p.detach().double() - old for p, old in zip(model.parameters(), before, strict=True)]
    far, size = (sum(float(part.square().sum()) for part in parts) for parts in (apart, before))
    assert moved == pytest.approx((far / size) ** 0.5, rel=1e-5)


TWO_CARDS = (THERE, ELSEWHERE, THERE)
OTHER_PLACES = {
    "student on the cpu": (HOME, THERE, HOME),
    "teacher on the cpu": (THERE, HOME, THERE),
    "reference beside the teacher": (THERE, ELSEWHERE, ELSEWHERE),
}
FAMILIES = ("reverse_kl", "anchored", "sampled_token")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *(pytest.param(name, TWO_CARDS, id=f"{name}, two cards") for name in DIVERGENCES),
        *(
            pytest.param(name, where, id=f"{name}, {what}")
            for name in FAMILIES
            for what, where in OTHER_PLACES.items()
        ),
    ],
)
def test_no_divergence_mixes_two_devices(name: str, where: tuple[torch.device, ...]) -> None:
    both, rules = models(), rules_of(f"divergence={name}", "confidence=drift")
    expected, gradient = run(both, rules, make_batch(), chunk_tokens=CHUNK)
    with Places() as places:
        apart = spread(both, places, *where)
        loss, _ = run(apart, rules, make_batch(), chunk_tokens=CHUNK)
        same = flat_gradient(both.student)
    assert loss.loss == pytest.approx(expected.loss, rel=1e-12)
    assert torch.equal(same, gradient)
    assert all(places.calls[place] > 100 for place in set(where[:2]))
    assert places.largest <= max(CHUNK * both.vocabulary, longest_input(both))
    crossed = places.crossed[str(where[1]), str(where[0])]
    if name in ("nll", "sampled_token"):
        assert crossed < 20 * 60  # a number or a few per token, no distribution
    else:
        assert crossed > both.vocabulary


def longest_input(both: Models) -> int:
    """Ids of a padded micro-batch, which start on the CPU."""
    return 2 * max(len(played.episode.token_ids) for played in make_batch())


@pytest.mark.parametrize("choice", ["log_skipped", "matched_scale", "disagreement_uncertainty"])
def test_no_way_through_the_gradient_mixes_two_devices(choice: str) -> None:
    overrides = {
        "matched_scale": ["normalization=matched_scale"],
        "disagreement_uncertainty": ["confidence=disagreement_uncertainty"],
    }
    both, rules = models(), rules_of(*overrides.get(choice, []))
    expected, gradient = run(both, rules, make_batch(), log_skipped=choice != "log_skipped")
    with Places() as places:
        apart = spread(both, places, THERE, ELSEWHERE, THERE)
        loss, _ = run(apart, rules, make_batch(), log_skipped=choice != "log_skipped")
    assert loss.loss == pytest.approx(expected.loss, rel=1e-12)
    assert torch.equal(flat_gradient(both.student), gradient)


# --- the watch itself


def test_tensors_of_two_devices_do_not_meet_unseen() -> None:
    with Places() as places:
        a, b = torch.ones(2, 2, device=THERE), torch.ones(2, 2, device=ELSEWHERE)
        assert (a.device, b.device, torch.ones(2).device) == (THERE, ELSEWHERE, HOME)
        assert (a @ a + 1).device == THERE
        index = torch.zeros(1, dtype=torch.long)
        for meet in (lambda: a @ b, lambda: a + b, lambda: torch.cat([a, b]), lambda: a[index]):
            with pytest.raises(Mixed):
                meet()
        assert (a @ b.to(a)).device == THERE
        assert (a.cpu() + b.to("cpu")).device == HOME
    assert places.crossed == {("cuda:1", "cuda:0"): 4, ("cuda:0", "cpu"): 4, ("cuda:1", "cpu"): 4}


def test_a_teacher_s_hidden_states_on_the_students_device_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loss did before it knew of two devices."""
    from sage.objective.chunked import Projected

    def as_before(self: Projected, index_C: torch.Tensor, vocabulary: int) -> torch.Tensor:
        return self.head.logits(self.hidden_TD.to(index_C.device)[index_C], vocabulary)

    both = models()
    with Places() as places:
        apart = spread(both, places, THERE, ELSEWHERE, THERE)
        monkeypatch.setattr(Projected, "product", as_before)
        with pytest.raises(Mixed, match="linear of tensors on cuda:0, cuda:1"):
            run(apart, rules_of(), make_batch())

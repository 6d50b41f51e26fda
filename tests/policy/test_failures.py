"""Models that fail in play: fewer rows first, then one episode, never a score."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sage.episode import Episode, Status, Task
from sage.errors import NotFinite
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.engine import EngineName, right_engine
from sage.policy.decoding.generate import sample
from sage.policy.models.load import LanguageModel
from sage.policy.seat import Job
from tests.policy.test_rollout import play_alfworld, settings


def failing(lm: LanguageModel, fails: Callable[[torch.Tensor], bool], error: Exception) -> LanguageModel:
    """The model; its embedding raises where `fails` says so of the ids of a forward: [rows, tokens], or
    [tokens] in the packed engine."""
    model = copy.deepcopy(lm.model)
    own = replace(lm, model=model)
    for engine in ("hf", "packed"):
        right_engine(own, engine)  # compared with the plain forward once, before anything fails

    def check(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if fails(inputs[0]):
            raise error

    model.get_input_embeddings().register_forward_pre_hook(check)
    return own


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("engine", "fails"),
    [
        ("hf", lambda ids: ids.shape[0] > 2),
        ("hf", lambda ids: ids.shape[0] > 1),
        ("packed", lambda ids: ids.numel() > 800),
    ],
)
def test_a_batch_that_does_not_fit_is_played_with_fewer_rows_and_samples_the_same_tokens(
    lm: LanguageModel, tasks: list[Task], engine: EngineName, fails: Callable[[torch.Tensor], bool]
) -> None:
    how = replace(settings(slots=5, turns=6), engine=engine)
    jobs = [Job(t, r) for t in tasks for r in (0, 1)]
    expected = play_alfworld(lm, jobs, how)
    told: list[Episode] = []
    episodes = play_alfworld(failing(lm, fails, out_of_memory()), jobs, how, told.append)
    assert [e.token_ids for e in episodes] == [e.token_ids for e in expected]
    assert [e.status for e in episodes] == [e.status for e in expected]
    assert any(e.retries for e in episodes)
    assert not any(e.retries for e in expected)
    assert sorted(id(e) for e in told) == sorted(map(id, episodes))


def test_rows_that_ran_out_of_memory_once_are_not_tried_again_and_that_is_said(
    lm: LanguageModel, tasks: list[Task]
) -> None:
    said: list[str] = []
    how = replace(settings(slots=4, turns=4), engine="hf", say=said.append)
    jobs = [Job(t) for t in tasks]
    expected = play_alfworld(lm, jobs, how)
    small = failing(lm, lambda ids: ids.shape[0] > 2, out_of_memory())
    first, second = play_alfworld(small, jobs, how), play_alfworld(small, jobs, how)
    assert any(e.retries for e in first)
    assert not any(e.retries for e in second)
    for episodes in (first, second):
        assert [e.token_ids for e in episodes] == [e.token_ids for e in expected]
    assert said == [
        "4 episodes side by side have run out of memory: 2 are played from here on, which changes no answer;"
        " speed.slots=2 does so from the start"
    ]
    other = failing(lm, lambda ids: ids.shape[0] > 2, ValueError("not the memory"))
    play_alfworld(other, jobs, how)
    assert other.most_rows is None
    assert len(said) == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (out_of_memory(), "The model failed: CUDA out of memory. Tried to allocate 2.00 GiB"),
        (ValueError("bad mask"), "The model failed: ValueError: bad mask"),
    ],
)
def test_an_answer_that_fails_alone_costs_its_own_episode_only(
    lm: LanguageModel, tasks: list[Task], error: Exception, says: str
) -> None:
    how = replace(settings(slots=4, turns=4), engine="hf")
    jobs = [Job(t) for t in tasks]
    expected = play_alfworld(lm, jobs, how)
    opening = expected[2].token_ids[: expected[2].turns[0].answer_start]

    def poison(ids: torch.Tensor) -> bool:
        return any(row.tolist()[-len(opening) :] == opening for row in ids)

    episodes = play_alfworld(failing(lm, poison, error), jobs, how)
    assert (episodes[2].status, episodes[2].error, episodes[2].turns) == (Status.POLICY_ERROR, says, [])
    assert episodes[2].retries == 3  # among four rows, among two, alone
    for i in (0, 1, 3, 4):
        assert (episodes[i].status, episodes[i].token_ids) == (expected[i].status, expected[i].token_ids)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_is_sampled_from_logits_that_are_no_numbers(temperature: float, bad: float) -> None:
    logits = torch.zeros(3, 5)
    logits[0, :4] = -math.inf  # a distribution like any other
    sampling = Sampling(temperature, 1.0, 8)
    assert sample(logits, sampling, np.full(3, 0.5))[0] == 4
    logits[1, 2 if bad > 0 or bad != bad else slice(None)] = bad
    with pytest.raises(NotFinite):
        sample(logits, sampling, np.full(3, 0.5))


def test_an_episode_whose_logits_are_no_numbers_is_no_score(lm: LanguageModel, tasks: list[Task]) -> None:
    how = replace(settings(slots=4, turns=4), engine="hf")
    jobs = [Job(t) for t in tasks]
    expected = play_alfworld(lm, jobs, how)
    opening = expected[1].token_ids[: expected[1].turns[0].answer_start]
    model = copy.deepcopy(lm.model)
    right_engine(own := replace(lm, model=model), "hf")

    def poison(module: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        rows = [row.tolist()[-len(opening) :] == opening for row in inputs[0]]
        return output.masked_fill(torch.tensor(rows)[:, None, None], math.nan)

    model.get_input_embeddings().register_forward_hook(poison)
    episodes = play_alfworld(own, jobs, how)
    assert episodes[1].status is Status.POLICY_ERROR
    assert "not finite" in episodes[1].error
    for i in (0, 2, 3, 4):
        assert (episodes[i].status, episodes[i].token_ids) == (expected[i].status, expected[i].token_ids)


@pytest.mark.parametrize("slots", [1, 3])
def test_an_answer_that_fails_on_what_was_cached_is_tried_with_nothing_cached(
    lm: LanguageModel, tasks: list[Task], slots: int
) -> None:
    how = replace(settings(slots=slots, turns=3), engine="hf")
    jobs = [Job(t) for t in tasks]
    expected = play_alfworld(lm, jobs, how)
    # Messages that continue a conversation fail; whole ones, which are longer, do not.
    episodes = play_alfworld(failing(lm, lambda ids: 1 < ids.shape[1] < 60, out_of_memory()), jobs, how)
    assert [e.token_ids for e in episodes] == [e.token_ids for e in expected]
    assert all(e.status is Status.TURN_BUDGET and e.retries for e in episodes)


def test_a_model_that_answers_nothing_is_given_up_soon(lm: LanguageModel, tasks: list[Task]) -> None:
    calls = []

    def always(ids: torch.Tensor) -> bool:
        calls.append(1)
        return True

    broken = failing(lm, always, out_of_memory())
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate") as caught:
        play_alfworld(broken, [Job(t, r) for t in tasks for r in range(20)], settings(slots=8))
    assert len(calls) < 20
    assert "in _answers" in "".join(caught.value.__notes__)

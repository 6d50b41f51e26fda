"""The engine of fixed shapes: a row's logits are its own to the last bit, whoever is decoded beside it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sage.episode import Task
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.engine import make_engine, right_engine
from sage.policy.decoding.engines import candidates
from sage.policy.decoding.generate import Decoder, answers, reply, shared_prefixes
from sage.policy.decoding.static import StaticEngine
from sage.policy.models.load import LanguageModel
from sage.policy.seat import Job
from tests.policy.test_generate import assert_like_plain, plain, random_ids
from tests.policy.test_rollout import play_alfworld, settings

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])


def half(lm: LanguageModel, device: str) -> LanguageModel:
    model = copy.deepcopy(lm.model).to(device, torch.bfloat16)
    return replace(lm, model=model, device=torch.device(device))


def feed(engine: StaticEngine, row: int, ids: list[int]) -> torch.Tensor:
    """A prompt, then pieces with guesses that are taken back; all logits of the row."""
    rows = slice(row, row + 1)
    found = [engine.extend(rows, [ids[:70]], [1])]
    for start in range(70, len(ids), 2):
        found.append(engine.extend(rows, [[*ids[start : start + 2], 7]], [3])[:2])
        engine.lengths[row] -= 1
    return torch.cat(found).cpu()


@DEVICES
def test_a_rows_bfloat16_logits_are_the_same_to_the_bit_alone_and_beside_others(
    lm: LanguageModel, device: str
) -> None:
    own = half(lm, device)
    ids = random_ids(0, 90)
    alone = feed(StaticEngine(own, 5, room=2000, width=3), 0, ids)
    beside = StaticEngine(own, 5, room=2000, width=3)
    others = [random_ids(i, n) for i, n in ((1, 1500), (2, 3), (3, 40), (4, 300))]
    beside.extend(slice(0, 4), others, [1, 3, 2, 1])
    assert torch.equal(feed(beside, 4, ids), alone)
    # And in another place, while the others go on in the same steps.
    beside.release(1, 4)
    beside.lengths[1] = 0
    beside.extend(slice(0, 4), [[5], ids[:70], [6, 7], [8]], [1, 1, 2, 1])
    for start in range(70, 90):
        step = beside.extend(slice(0, 4), [[9], [ids[start]], [], [3, 4, 5]], [1, 1, 0, 3])
        assert torch.equal(step[1].cpu(), alone[1 + start - 70])


@DEVICES
def test_bfloat16_answers_are_the_same_alone_and_beside_others(lm: LanguageModel, device: str) -> None:
    own = half(lm, device)
    prompts = [random_ids(i, 5 + 23 * i) for i in range(6)]
    uniforms = np.random.default_rng(0).random((6, 40))
    how = Sampling(1.0, 1.0, 40)

    def said(chosen: list[int]) -> list[list[int]]:
        decoder = Decoder(own, 6, engine="static", draft_tokens=4, rows=len(chosen), room=400)
        mine = [prompts[i] for i in chosen]
        return [r.ids for r in answers(decoder, mine, how, uniforms[chosen], [400] * len(chosen))]

    together = said(list(range(6)))
    assert together == [said([i])[0] for i in range(6)]
    assert together[::-1] == said(list(range(6))[::-1])
    assert sum(map(len, together)) > 100


@DEVICES
def test_replies_to_prompts_that_begin_alike_are_those_to_each_alone_in_bfloat16(
    lm: LanguageModel, device: str
) -> None:
    own = half(lm, device)
    stem = random_ids(0, 150)
    prompts = [stem[: 150 - 9 * i] + random_ids(1 + i, 5 + 11 * i) for i in range(7)]
    read: list[int] = []
    assert right_engine(own, "static") == "static"  # measured once, and not counted below
    run = StaticEngine._run

    def counted(engine: StaticEngine, chunk: bool, parts: Any, slot: int) -> torch.Tensor:
        read.append(sum(len(ids) for *_, ids in parts) if chunk else 0)
        return run(engine, chunk, parts, slot)

    def said(chosen: list[list[int]], shares: bool) -> tuple[list[list[int]], int]:
        read.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StaticEngine, "_run", counted)
            patch.setattr(StaticEngine, "shares", shares)
            replies = reply(own, chosen, 24, batch=4, engine="static", draft_tokens=3)
        return [r.ids for r in replies], sum(read)

    together, tokens = said(prompts, True)
    each, all_tokens = said(prompts, False)
    assert together == each == [said([p], True)[0][0] for p in prompts]
    assert all_tokens == sum(map(len, prompts))
    assert tokens == all_tokens - _shared(prompts, 4) < all_tokens / 2


def _shared(prompts: list[list[int]], batch: int) -> int:
    ordered = sorted(prompts)
    parts = [ordered[i : i + batch] for i in range(0, len(ordered), batch)]
    return sum(n for part in parts for _, n in shared_prefixes(part))


def test_bfloat16_episodes_are_the_same_alone_and_side_by_side(lm: LanguageModel, tasks: list[Task]) -> None:
    own = half(lm, "cpu")
    how = replace(settings(slots=4, turns=4), engine="static", draft_tokens=3, room=600)
    jobs = [Job(t, r) for t in tasks[:3] for r in (0, 1)]
    together = play_alfworld(own, jobs, how)
    alone = [play_alfworld(own, [job], how)[0] for job in reversed(jobs)][::-1]
    assert [e.token_ids for e in together] == [e.token_ids for e in alone]


def test_a_row_that_outgrows_its_room_is_what_it_was(lm: LanguageModel) -> None:
    engine = StaticEngine(lm, 2, room=100, width=2)
    history = [random_ids(0, 90), random_ids(1, 20)]
    engine.extend(slice(0, 2), history, [1, 1])
    new = [random_ids(2, 300), [5]]
    logits = engine.extend(slice(0, 2), new, [3, 1])
    assert_like_plain(lm, logits, [(history[0] + new[0], 3), (history[1] + new[1], 1)])


def test_only_an_engine_of_fixed_shapes_makes_slots_that_nobody_uses(lm: LanguageModel) -> None:
    assert len(make_engine(lm, 8, "static", rows=2).lengths) == 8
    assert len(make_engine(lm, 8, "packed", rows=2).lengths) == 2


def test_auto_takes_it_on_a_gpu_for_a_plain_llama_or_qwen(lm: LanguageModel) -> None:
    assert candidates(replace(lm, device=torch.device("cuda")))[0] == "static"
    assert candidates(lm)[0] == "packed"


@CUDA
def test_a_graph_gives_what_the_plain_forward_gives_and_sees_weights_that_were_trained(
    lm: LanguageModel,
) -> None:
    own = replace(lm, model=copy.deepcopy(lm.model).to("cuda"), device=torch.device("cuda"))
    assert right_engine(own) == "static"
    engine = StaticEngine(own, 3, room=300)
    ids = random_ids(0, 60)
    engine.extend(slice(0, 1), [ids], [1])
    engine.extend(slice(0, 1), [[5]], [1])
    with torch.no_grad():
        for p in own.model.parameters():
            p.mul_(1.1)
    engine.lengths[0] = 0
    engine.extend(slice(0, 1), [ids], [1])
    logits = engine.extend(slice(0, 1), [[5]], [1])
    want = plain(replace(own, model=own.model.cpu()), [*ids, 5])
    torch.testing.assert_close(logits.cpu(), want, rtol=1e-3, atol=1e-3)

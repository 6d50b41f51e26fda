"""Decoding by vLLM against our own engines. Needs vLLM: `nox -s vllm` makes an environment with it."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sage.config.load import load
from sage.envs.pool import EnvPool
from sage.errors import ModelError
from sage.policy.decoding import vllm_decoder
from sage.policy.decoding.answer import Reply, Sampling
from sage.policy.decoding.generate import Decoder, Decodes, answers
from sage.policy.decoding.vllm_decoder import VllmDecoder
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.rollout import PlaySettings, play
from sage.policy.seat import Job
from tests.tiny_models import tiny_lm

OPTIONS = {"max_model_len": 1024, "enforce_eager": True, "kv_cache_memory_bytes": 1 << 27}
GREEDY = Sampling(0.0, 1.0, 24)
ROOM = [900, 900, 900]


def test_a_missing_vllm_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"rollout\.decoder=vllm needs vLLM, which cannot be imported here"):
        VllmDecoder(load_model(load([]).student), 1, {})


def test_who_decodes_is_part_of_a_run_s_identity_because_vllm_samples_otherwise() -> None:
    ours, theirs = load([]).digest_fields(), load(["rollout.decoder=vllm"]).digest_fields()
    assert (ours["rollout"].pop("decoder"), theirs["rollout"].pop("decoder")) == ("local", "vllm")
    assert theirs == ours


class Sleeper:
    """What `rest` and `_serve` ask of `vllm.LLM` about sleep, which its build for CPUs refuses."""

    def __init__(self, may: bool) -> None:
        self.said: list[object] = []
        self.asleep = False
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(enable_sleep_mode=may), is_sleeping=lambda: self.asleep
        )

    def sleep(self, level: int) -> None:
        self.asleep = True
        self.said.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self.asleep = self.asleep and "kv_cache" not in tags
        self.said.append(("wake", *tags))

    def collective_rpc(self, name: str, kwargs: object) -> None:
        self.said.append(name)

    def reset_prefix_cache(self) -> None:
        self.said.append("forget")


def test_vllm_gives_its_memory_back_after_a_rollout_and_gets_the_weights_before_its_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The order in which vLLM is asked; not the memory, for want of a GPU."""
    lm = tiny_lm(0)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=None))
    awake, sleeper = Sleeper(False), Sleeper(True)
    monkeypatch.setitem(vllm_decoder._served, lm.model, awake)
    VllmDecoder(lm, 1, {})
    vllm_decoder.rest(lm)
    assert awake.said == ["reload_weights", "forget"]
    monkeypatch.setitem(vllm_decoder._served, lm.model, sleeper)
    for _ in range(2):
        VllmDecoder(lm, 1, {})
        vllm_decoder.rest(lm)
        vllm_decoder.rest(lm)
    given = ["reload_weights", "forget", ("sleep", 2)]
    assert sleeper.said == [*given, ("wake", "weights"), given[0], ("wake", "kv_cache"), *given[1:]]
    assert load(["+speed.vllm.enable_sleep_mode=true"]).digest_fields() == load([]).digest_fields()


@pytest.fixture(scope="module")
def student() -> LanguageModel:
    pytest.importorskip("vllm")
    lm = load_model(load([]).student)
    return replace(lm, model=copy.deepcopy(lm.model))  # a test changes its weights


def openings(lm: LanguageModel) -> list[list[int]]:
    scenes = [
        "You are in the middle of a room. Looking quickly around you, you see a bed 1, a desk 1, a shelf 1,"
        f" and a drawer 1.\nYour task is to: put a {thing} in desk."
        for thing in ("mug", "pen", "book")
    ]
    message = [[{"role": "user", "content": scene}] for scene in scenes]
    texts = [lm.tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in message]
    return [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def converse(lm: LanguageModel, decoder: Decodes, sampling: Sampling = GREEDY) -> list[list[Reply]]:
    """Three turns of three rows; after the second the first row leaves, and the last takes its place."""
    said, prompts = [], openings(lm)
    follow = lm.tokenizer("<|end|><|user|>Nothing happens.<|end|><|assistant|>", add_special_tokens=False)
    for turn in range(3):
        uniforms = np.random.default_rng(turn).random((3, 24))[: len(prompts)]
        said.append(answers(decoder, prompts, sampling, uniforms, ROOM[: len(prompts)]))
        prompts = [[*reply.ids[-1:], *follow["input_ids"]] for reply in said[-1]]
        if turn == 1:
            decoder.release(0, 2)
            prompts = [prompts[2], prompts[1]]
    assert decoder.lengths[2] == 0
    return said


def test_greedy_conversations_equal_ours_and_follow_the_weights(student: LanguageModel) -> None:
    want = converse(student, Decoder(student, 3, engine="packed"))
    assert len({tuple(reply.ids) for turn in want for reply in turn}) > 3
    assert converse(student, VllmDecoder(student, 3, OPTIONS)) == want

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.6 * parameter.std())
    changed = converse(student, Decoder(student, 3, engine="packed"))
    assert changed != want
    assert converse(student, VllmDecoder(student, 3, OPTIONS)) == changed


@pytest.mark.parametrize("how", [replace(GREEDY, stop="Thought:"), replace(GREEDY, max_new_tokens=3)])
def test_answers_end_where_ours_do(student: LanguageModel, how: Sampling) -> None:
    want = converse(student, Decoder(student, 3, engine="packed"), how)
    assert converse(student, VllmDecoder(student, 3, OPTIONS), how) == want


def test_a_row_without_room_is_silent_and_keeps_its_history(student: LanguageModel) -> None:
    prompts = openings(student)[:2]
    decoder = VllmDecoder(student, 2, OPTIONS)
    silent, other = answers(decoder, prompts, GREEDY, None, [len(prompts[0]), 900])
    assert silent == Reply([], "", False)
    assert other.ids
    assert decoder.lengths == [len(prompts[0]), len(prompts[1]) + len(other.ids) - 1]


def test_a_sampled_answer_depends_on_its_random_numbers_and_not_on_its_neighbours(
    student: LanguageModel,
) -> None:
    prompts, warm = openings(student), Sampling(1.0, 0.95, 24)
    uniforms = np.random.default_rng(0).random((3, 24))
    together = answers(VllmDecoder(student, 3, OPTIONS), prompts, warm, uniforms, ROOM)
    alone = answers(VllmDecoder(student, 1, OPTIONS), prompts[2:], warm, uniforms[2:], ROOM[2:])
    assert alone == together[2:]
    others = answers(VllmDecoder(student, 3, OPTIONS), prompts, warm, 1 - uniforms, ROOM)
    assert others != together


def test_episodes_are_played_with_it(student: LanguageModel) -> None:
    config = load([])
    how = PlaySettings(GREEDY, config.prompt.styles["short"], 0, "test", 6, 1000, 2, vllm=OPTIONS)
    jobs = [Job(task) for task in config.env.tasks("train")[:3]]
    played = {}
    for decoder in ("local", "vllm"):
        with EnvPool(config.env.make, 0, 60.0) as pool:
            episodes = play(student, pool, jobs, replace(how, decoder=decoder))
        played[decoder] = [(e.token_ids, e.status) for e in episodes]
    assert played["vllm"] == played["local"]

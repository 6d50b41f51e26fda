"""The cached, ragged, slot-moving decoder computes what a plain forward over each whole sequence computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sage.errors import ModelError
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.engine import EngineName, make_engine
from sage.policy.decoding.generate import Decoder, answers, reply, sample, shared_prefixes, stream
from sage.policy.decoding.packed import PackedEngine
from sage.policy.decoding.padded import PaddedEngine
from sage.policy.models.load import LanguageModel

ENGINES = pytest.mark.parametrize("name", ["hf", "packed", "static"])


def plain(lm: LanguageModel, ids: list[int], keep: int = 1) -> torch.Tensor:
    with torch.inference_mode():
        return lm.model(input_ids=torch.tensor([ids])).logits[0, -keep:].float()


def random_ids(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(5, 900, count).tolist()


def assert_like_plain(lm: LanguageModel, logits: torch.Tensor, wanted: list[tuple[list[int], int]]) -> None:
    """`wanted`: history and number of positions of each row, in the order of `logits`."""
    expected = torch.cat([plain(lm, history, keep) for history, keep in wanted if keep])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@ENGINES
def test_ragged_rows_equal_a_plain_forward(lm: LanguageModel, name: EngineName) -> None:
    engine = make_engine(lm, 3, name)
    history = [random_ids(0, 11), random_ids(1, 40), random_ids(2, 3)]
    logits = engine.extend(slice(0, 3), history, [1, 5, 3])
    assert_like_plain(lm, logits, [(history[0], 1), (history[1], 5), (history[2], 3)])
    logits = engine.extend(slice(0, 3), [[7], [], [9, 8]], [1, 0, 1])  # row 1 rests
    history[0] += [7]
    history[2] += [9, 8]
    assert_like_plain(lm, logits, [(history[0], 1), (history[2], 1)])
    engine.lengths[2] -= 1  # the newest token is thrown away
    history[2].pop()
    new = [random_ids(3, 5), random_ids(4, 300), random_ids(5, 1)]  # makes the cache grow
    logits = engine.extend(slice(0, 3), new, [2, 2, 1])
    for row in range(3):
        history[row] += new[row]
    assert_like_plain(lm, logits, [(history[0], 2), (history[1], 2), (history[2], 1)])
    assert engine.lengths == [len(h) for h in history]


@ENGINES
def test_a_released_row_is_filled_from_the_last_and_can_be_used_again(
    lm: LanguageModel, name: EngineName
) -> None:
    engine = make_engine(lm, 3, name)
    history = [random_ids(0, 30), random_ids(1, 9), random_ids(2, 20)]
    engine.extend(slice(0, 3), history, [1, 1, 1])
    engine.release(0, 2)
    assert engine.lengths == [20, 9, 0]
    fresh = random_ids(9, 4)
    logits = engine.extend(slice(0, 3), [[5], [6, 7], fresh], [1, 1, 1])
    assert_like_plain(lm, logits, [([*history[2], 5], 1), ([*history[1], 6, 7], 1), (fresh, 1)])


@ENGINES
def test_rows_that_begin_alike_equal_rows_on_their_own(lm: LanguageModel, name: EngineName) -> None:
    stem, other = random_ids(0, 50), random_ids(1, 9)
    prompts = sorted(
        [stem + random_ids(2, 3), stem[:30] + random_ids(3, 8), other, stem + random_ids(4, 200)]
    )
    shared = shared_prefixes(prompts)
    assert sorted(n for _, n in shared) == [0, 0, 30, 50]
    engine = make_engine(lm, 4, name)
    logits = engine.extend(slice(0, 4), prompts, [1, 2, 1, 1], shared)
    assert_like_plain(lm, logits, list(zip(prompts, [1, 2, 1, 1], strict=True)))
    logits = engine.extend(slice(0, 4), [[5], [6], [7], [8]], [1, 1, 1, 1])
    assert_like_plain(lm, logits, [([*p, i], 1) for p, i in zip(prompts, [5, 6, 7, 8], strict=True)])


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_other_architectures_equal_a_plain_forward(lm: LanguageModel, kind: str) -> None:
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind, vocab_size=900, hidden_size=48, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=3, head_dim=8, initializer_range=0.5,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not config.tie_word_embeddings
    other = LanguageModel(model, lm.tokenizer, kind, "", torch.device("cpu"))
    assert isinstance(make_engine(other, 2, "auto"), PackedEngine)
    prompts = [random_ids(0, 300), random_ids(1, 7)]
    logits = make_engine(other, 2, "packed").extend(slice(0, 2), prompts, [3, 3])
    assert_like_plain(other, logits, [(prompts[0], 3), (prompts[1], 3)])


def test_a_row_that_reads_a_message_pads_nobody_who_goes_on_by_a_token(lm: LanguageModel) -> None:
    engine = make_engine(lm, 4, "hf")
    history = [random_ids(i, 20) for i in range(4)]
    engine.extend(slice(0, 4), history, [1] * 4)
    engine.lengths[3] = 0  # and one begins anew
    history[3] = []
    read: list[tuple[int, int]] = []
    hook = lm.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: read.append(tuple(given[0].shape))
    )
    try:
        new = [[5], random_ids(8, 40), [6, 7], random_ids(9, 90)]
        logits = engine.extend(slice(0, 4), new, [1, 2, 2, 1])
    finally:
        hook.remove()
    assert sorted(read) == [(1, 40), (1, 90), (3, 2)]
    assert_like_plain(lm, logits, [(h + n, k) for h, n, k in zip(history, new, [1, 2, 2, 1], strict=True)])


def test_two_threads_give_the_same_logits(lm: LanguageModel) -> None:
    prompts = [random_ids(i, 20 + 30 * i) for i in range(5)]
    before = torch.get_num_threads()
    try:
        got = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got.append(make_engine(lm, 5, "packed").extend(slice(0, 5), prompts, [1] * 5))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got[0], got[1], rtol=1e-5, atol=1e-5)


def test_a_model_that_packed_does_not_know_is_left_to_transformers(lm: LanguageModel) -> None:
    config = lm.model.config.__class__(
        **lm.model.config.to_dict() | {"layer_types": ["sliding_attention"] * 2}
    )
    config.sliding_window = 16
    windowed = LanguageModel(type(lm.model)(config), lm.tokenizer, "windowed", "", lm.device)
    assert isinstance(make_engine(windowed, 1, "auto"), PaddedEngine)
    with pytest.raises(ModelError, match=r"not right for the model 'windowed'.*know this architecture"):
        make_engine(windowed, 1, "packed")


@ENGINES
def test_guesses_do_not_change_answers(lm: LanguageModel, name: EngineName) -> None:
    """Three conversations of two turns, again, and once more with one that begins otherwise."""

    def converse(draft_tokens: int, temperature: float) -> tuple[list[list[int]], list[int], int]:
        decoder = Decoder(lm, 3, engine=name, draft_tokens=draft_tokens)
        forwards = 0
        extend = decoder.engine.extend

        def counted(*args: object) -> torch.Tensor:
            nonlocal forwards
            forwards += 1
            return extend(*args)  # type: ignore[arg-type]

        decoder.engine.extend = counted  # type: ignore[method-assign]
        said: list[list[int]] = []
        first = [random_ids(b, 9) for b in range(3)]
        misleading = [[*random_ids(7, 20), *first[0][-3:]], first[1], first[2]]
        for prompts in (first, first, misleading):
            decoder.lengths[:] = [0, 0, 0]
            for turn in range(2):
                uniforms = np.random.default_rng(turn).random((3, 12))
                how = Sampling(temperature, 1.0, 12)
                replies = answers(decoder, prompts, how, uniforms, [500, 500, 500])
                said += [r.ids for r in replies]
                prompts = [[r.ids[-1], *random_ids(b, 4)] for b, r in enumerate(replies)]
        return said, list(decoder.lengths), forwards

    for temperature in (0.0, 0.7):
        plainly, lengths, slow = converse(0, temperature)
        guessed, same_lengths, fast = converse(8, temperature)
        assert guessed == plainly
        assert same_lengths == lengths
        assert fast < 0.8 * slow  # many guesses were right


@ENGINES
def test_greedy_replies_equal_transformers_generate(lm: LanguageModel, name: EngineName) -> None:
    prompts = [random_ids(i, n) for i, n in enumerate((5, 17, 60))]
    prompts.append([*prompts[1][:12], 7, 8])
    replies = reply(lm, prompts, max_new_tokens=12, engine=name)
    for prompt, got in zip(prompts, replies, strict=True):
        with torch.inference_mode():
            want = lm.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=12,
                do_sample=False,
            )[0, len(prompt) :].tolist()
        assert got.ids == want
        assert got.truncated == (want[-1] not in lm.end_ids)


def test_a_stop_pattern_ends_the_answer_where_it_first_matches(lm: LanguageModel) -> None:
    prompt = random_ids(3, 10)
    free = reply(lm, [prompt], max_new_tokens=12)[0]
    marker = lm.tokenizer.decode(free.ids[:4]).strip()[-1]
    stopped = reply(lm, [prompt], max_new_tokens=12, stop=f"[{marker}]")[0]
    assert stopped.ids == free.ids[: len(stopped.ids)]
    assert len(stopped.ids) <= 4
    assert marker in stopped.text
    assert not stopped.truncated


def test_sampling_follows_the_distribution_and_top_p_cuts_its_tail() -> None:
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = stream("draws").random(20_000)
    logits = probs.log().expand(len(draws), -1)
    got = np.bincount(sample(logits, Sampling(1.0, 1.0, 1), draws), minlength=4) / len(draws)
    np.testing.assert_allclose(got, probs, atol=0.015)
    got = np.bincount(sample(logits, Sampling(1.0, 0.79, 1), draws), minlength=4) / len(draws)
    np.testing.assert_allclose(got, [0.625, 0.375, 0, 0], atol=0.015)
    # Temperature 0.5 squares the probabilities.
    square = (probs**2 / (probs**2).sum()).numpy()
    got = np.bincount(sample(logits, Sampling(0.5, 1.0, 1), draws), minlength=4) / len(draws)
    np.testing.assert_allclose(got, square, atol=0.015)


def test_streams_depend_on_their_key_alone() -> None:
    assert stream(1, "a", 0).random() == stream(1, "a", 0).random()
    assert stream(1, "a", 0).random() != pytest.approx(stream(1, "a", 1).random())
    assert stream(1, "ab").random() != pytest.approx(stream(1, "a", "b").random())

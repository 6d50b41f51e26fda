"""The cached, ragged, slot-moving decoder computes what a plain forward over each whole sequence computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sage.policy.generate import Sampling, SlotDecoder, reply, sample, stream
from sage.policy.model import LanguageModel


def plain(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return lm.model(input_ids=torch.tensor([ids])).logits[0, -1].float()


def random_ids(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(5, 900, count).tolist()


def test_ragged_extends_and_steps_equal_a_plain_forward(lm: LanguageModel) -> None:
    decoder = SlotDecoder(lm, 3)
    history = [random_ids(0, 11), random_ids(1, 40), random_ids(2, 3)]
    logits = decoder.extend(slice(0, 3), history)
    for row in range(3):
        torch.testing.assert_close(logits[row], plain(lm, history[row]), rtol=1e-4, atol=1e-4)
    logits = decoder.step(slice(0, 3), [7, None, 9])  # row 1 rests
    history[0] += [7]
    history[2] += [9]
    for row in (0, 2):
        torch.testing.assert_close(logits[row], plain(lm, history[row]), rtol=1e-4, atol=1e-4)
    new = [random_ids(3, 5), random_ids(4, 300), random_ids(5, 1)]  # makes the cache grow
    logits = decoder.extend(slice(0, 3), new)
    for row in range(3):
        history[row] += new[row]
        torch.testing.assert_close(logits[row], plain(lm, history[row]), rtol=1e-4, atol=1e-4)


def test_a_released_row_is_filled_from_the_last_and_can_be_used_again(lm: LanguageModel) -> None:
    decoder = SlotDecoder(lm, 3)
    history = [random_ids(0, 30), random_ids(1, 9), random_ids(2, 20)]
    decoder.extend(slice(0, 3), history)
    decoder.release(0, 2)
    assert decoder.lengths == [20, 9, 0]
    logits = decoder.extend(slice(0, 2), [[5], [6, 7]])
    torch.testing.assert_close(logits[0], plain(lm, [*history[2], 5]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[1], plain(lm, [*history[1], 6, 7]), rtol=1e-4, atol=1e-4)
    fresh = random_ids(9, 4)
    logits = decoder.extend(slice(2, 3), [fresh])
    torch.testing.assert_close(logits[0], plain(lm, fresh), rtol=1e-4, atol=1e-4)


def test_greedy_replies_equal_transformers_generate(lm: LanguageModel) -> None:
    prompts = [random_ids(i, n) for i, n in enumerate((5, 17, 60))]
    replies = reply(lm, prompts, max_new_tokens=12)
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

"""An answer's text grows by what is new, and ends where a search of the whole text would end it."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sage.policy.decoding.answer import UNFINISHED, Answer, GrowingText
from sage.policy.dialogue import Dialogue
from sage.policy.models.load import LanguageModel
from tests.chat_templates import DROPS_THINKING, OPENS_THINKING, tokenizer_with
from tests.tiny_models import byte_tokenizer

TEXT = "Thought: héllo 日本語, 🎉🎉.\nAction: go to  shelf 1\n\n" * 3


def sentencepiece() -> PreTrainedTokenizerFast:
    """Words that begin with a space, which falls off at the beginning of a text, and single bytes."""
    words = ["<unk>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "▁go", "▁Ac", "tion", ":", "\n"]
    raw = Tokenizer(
        models.BPE(
            vocab={w: i for i, w in enumerate(words)}, merges=[], unk_token="<unk>", byte_fallback=True
        )
    )
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")


def assert_grows_like(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> None:
    text = GrowingText(tokenizer)
    for end, token in enumerate(ids, 1):
        got, want = text.add(token), tokenizer.decode(ids[:end], skip_special_tokens=True)
        if UNFINISHED not in want:
            assert got == want


@pytest.mark.parametrize("make", [byte_tokenizer, sentencepiece])
def test_the_text_is_that_of_all_ids(make: Any, lm: LanguageModel) -> None:
    draw = np.random.default_rng(0)
    for tokenizer in (make(), lm.tokenizer):
        assert_grows_like(tokenizer, tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    words = sentencepiece()
    for _ in range(20):
        assert_grows_like(words, draw.choice([1, 258, 259, 260, 261, 262, 263, 40, 99], 40).tolist())
    for tokenizer in (byte_tokenizer(), lm.tokenizer):  # no whole characters at all
        ids, text = draw.integers(0, len(tokenizer), 60).tolist(), GrowingText(tokenizer)
        grown = [text.add(token) for token in ids]
        assert grown == [tokenizer.decode(ids[: i + 1], skip_special_tokens=True) for i in range(60)]


def test_a_long_answer_is_decoded_a_token_at_a_time() -> None:
    tokenizer = byte_tokenizer()
    decoded = 0

    class Counting:
        def decode(self, ids: list[int], **how: Any) -> str:
            nonlocal decoded
            decoded += len(ids)
            return str(tokenizer.decode(ids, **how))

    answer = Answer(Counting(), frozenset(), re.compile("Z"), 10_000)
    for token in tokenizer("abé日" * 250, add_special_tokens=False)["input_ids"]:
        answer.add(token)
    assert decoded < 20 * len(answer.ids)
    answer.add(tokenizer("Z", add_special_tokens=False)["input_ids"][0])
    assert not answer.live


@pytest.mark.parametrize("pattern", [r"Action:[^\n]*\n", "go to", r"\A(?s:.*)1\n\n", r"shelf 1\Z", "é"])
def test_an_answer_ends_where_a_search_of_its_whole_text_ends_it(pattern: str) -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    answer = Answer(tokenizer, frozenset(), re.compile(pattern), 10_000)
    for token in ids:
        answer.add(token)
        if not answer.live:
            break
    first = next(n for n in range(1, len(ids) + 1) if re.search(pattern, tokenizer.decode(ids[:n])))
    assert len(answer.ids) == first


@pytest.mark.parametrize("template", [OPENS_THINKING, DROPS_THINKING])
def test_a_pattern_that_waits_for_the_end_of_a_long_thought_costs_no_seconds(template: str) -> None:
    stop = Dialogue(tokenizer_with(template), thinking=True).stop(r"Action:[^\n]*\n")
    assert stop is not None
    pattern, thought = re.compile(stop), "<think>" + "I should look at shelf 1. " * 2000
    started = time.process_time()
    assert not pattern.search(thought + "Action: look\n")
    assert pattern.search(thought + "</think>Thought: a\nAction: look\n")
    assert time.process_time() - started < 1  # two and more from every place of the text

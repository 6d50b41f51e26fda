"""The tokenizer of the tiny models: byte-level BPE over words and whole numbers, with a two-token template.

Words of the environments become single tokens because they are frequent, not because they are listed: any
other text falls back to pieces and bytes. Numbers of up to three digits are one pre-token, so that copying
`cabinet 12` is copying two tokens. A tag such as `</action>` is one pre-token too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sage.config.own_model import TINY_CHAT_TEMPLATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
END = "<|end|>"
_PRE_TOKEN = r"</?\p{L}+>| ?\p{L}+:?| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train on `texts`; the result has `vocab_size` ids, the special ones first."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PRE_TOKEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token="<|pad|>",
        additional_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    fast.chat_template = TINY_CHAT_TEMPLATE
    return fast

"""A template of each kind that models bring, written for tests, and a tokenizer that has their tokens."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"),
    *("<start_of_turn>", "<end_of_turn>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|stop|>", "<|over|>"),
]
WORDS = ["<think>", "</think>", "[INST]", "[/INST]"]
"""Added, and not special."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = (
    "<|begin|>{% set ns = namespace(text='') %}"
    "{% if messages[0].role == 'system' %}{% set ns.text = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "<|head|>system<|/head|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n\n{{ ns.text }}<|eot|>"
    "{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
OPENS_THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "<|assistant|>{{ m.content.split('</think>')[-1] }}<|endoftext|>"
    "{% elif m.role == 'user' %}<|user|>{{ m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
DROPS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
INST = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
NO_CLOSING = (
    "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
TEXT_CLOSING = (
    "{% for m in messages %}{{ m.role | upper }}: {{ m.content }} ##\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
TWO_TOKENS = CHATML.replace("<|im_end|>", "<|stop|><|over|>")
CHANNEL = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "<|im_start|>assistant<|head|>final<|/head|>{{ m.content }}"
    "{{ '<|over|>' if loop.last and not add_generation_prompt else '<|im_end|>' }}"
    "{% else %}<|im_start|>{{ m.role }}<|/head|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
FORGETS = CHATML.replace("in messages", "in messages[-8:]")

USABLE = {
    "chatml": CHATML,
    "dated": DATED,
    "no system": NO_SYSTEM,
    "opens thinking": OPENS_THINKING,
    "drops thinking": DROPS_THINKING,
    "inst": INST,
    "no closing": NO_CLOSING,
    "text closing": TEXT_CLOSING,
    "two tokens": TWO_TOKENS,
    "channel": CHANNEL,
}


def tokenizer_with(template: str, eos: str = "<|endoftext|>") -> PreTrainedTokenizerFast:
    """One id a byte and those of TOKENS and WORDS, speaking by `template`; its end token is `eos`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*alphabet, *TOKENS, *WORDS])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(TOKENS)
    raw.add_tokens(WORDS)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos, pad_token="<|endoftext|>")
    made.chat_template = template
    return made

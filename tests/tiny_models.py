"""Small real models for tests: random Qwen3 weights, a byte-level tokenizer, a ChatML template."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sage.digests import weights_digest
from sage.episode import Episode, Failure, Status, Task, Turn
from sage.policy.models.load import LanguageModel

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_tokenizer(extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """One id per byte (256), three specials, and whatever words come in `extra`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*alphabet, *SPECIALS, *extra])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(SPECIALS)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_lm(
    seed: int,
    *,
    hidden: int = 32,
    rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    tie: bool = True,
    spread: float = 0.2,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> LanguageModel:
    """A random two-layer Qwen3 of `rows` embedding rows (default: the tokenizer's size)."""
    tokenizer = tokenizer or byte_tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=rows or len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
        tie_word_embeddings=tie,
        initializer_range=spread,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config).to(dtype).eval()
    return LanguageModel(model, tokenizer, f"tiny-{seed}", weights_digest(model), torch.device("cpu"))


def make_episode(
    number: int,
    turns: int,
    *,
    seed: int = 0,
    failures: dict[int, Failure] | None = None,
    status: Status = Status.WON,
    vocabulary: int = 256,
) -> Episode:
    """An episode of random ids: prompts and answers of various lengths."""
    random = torch.Generator().manual_seed(1000 * seed + number)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=random))
        return torch.randint(0, vocabulary, (length,), generator=random).tolist()

    episode = Episode(
        Task(f"task-{number}", "test", "train", f"type-{number % 3}", "generated"),
        goal="put a mug in a box",
        scene="You are in a room.",
        status=status,
    )
    for t in range(turns):
        episode.token_ids += ids(4, 12)
        start = len(episode.token_ids)
        answer = ids(1, 7)
        episode.token_ids += answer
        episode.turns.append(
            Turn(
                t,
                message=f"message {t}",
                observation=f"You see {number}-{t}.",
                answer=f"Action: look {t}",
                answer_start=start,
                answer_end=start + len(answer),
                thought="I look.",
                action=f"look {t}",
                feedback="You see nothing.",
                failure=(failures or {}).get(t, Failure.NONE),
            )
        )
    return episode


def save_llama(folder: Path, seed: int = 0) -> Path:
    """A folder with a random Llama of SmolLM2's make: tied, grouped heads, ChatML, bytes as tokens."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

"""A small random model with the shipped tokenizer, and a few generated games."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from sage.digests import weights_digest
from sage.envs.alfworld.simulator.generate import sample_games
from sage.episode import Task
from sage.policy.models.folder import resolve_path
from sage.policy.models.load import LanguageModel


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    tokenizer = AutoTokenizer.from_pretrained(resolve_path("sage://tiny-student"))
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config).eval()
    # Far from uniform, so that a wrong position or mask changes the argmax.
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0 if p.ndim > 1 else 1.0)
    return LanguageModel(model, tokenizer, "random", weights_digest(model), torch.device("cpu"))


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    import json

    root = tmp_path_factory.mktemp("games")
    made = []
    for index, game in enumerate(sample_games("train", 5, 6)):
        path = root / f"{index}.tw-pddl"
        path.write_text(json.dumps(game.as_json()))
        made.append(Task(f"t{index}", "alfworld", "train", game.key.split("-")[0], "generated", str(path)))
    return made

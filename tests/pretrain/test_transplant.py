"""A transplanted model keeps its attention, and pieces of names look to it like objects and numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain.transplant import transplant
from sage.envs.searchqa.encyclopedia import ENDS
from sage.policy.models.folder import resolve_path


def test_attention_stays_and_ends_of_names_lie_among_the_numbers(tmp_path: Path) -> None:
    source = Path(resolve_path("sage://tiny-teacher"))
    tokenizer = Path(resolve_path("sage://tiny-teacher/searchqa"))
    transplant(source, tokenizer, tmp_path, feed_forward=64)
    old = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    new = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, tensor in new.state_dict().items():
        if "self_attn" in name:
            assert torch.equal(tensor, old.state_dict()[name])
    assert new.model.layers[0].mlp.down_proj.weight.shape == (192, 64)
    words, old_words = AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(source)
    numbers = old.get_input_embeddings().weight[[old_words.encode(f" {n}")[0] for n in range(1, 10)]]
    ends = new.get_input_embeddings().weight[[words.get_vocab()[end] for end in ENDS]]
    assert torch.equal(ends[:9], numbers)
    span = torch.linalg.matrix_rank(numbers - numbers.mean(0))
    assert torch.linalg.matrix_rank(ends - numbers.mean(0), rtol=1e-3) == span

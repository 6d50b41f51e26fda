"""Packed rows and layers that are computed again: the same hidden states, loss and gradient; else refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sage.config.loading import LoraSettings
from sage.policy.models import packing
from sage.policy.models.hidden_states import hidden_states, training_error
from sage.policy.models.load import LanguageModel
from sage.policy.models.lora import add_adapters
from sage.policy.models.packing import why_not
from sage.policy.models.recompute import layers_of
from tests.tiny_models import byte_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 7}
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen2, some layers with a window": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SIZES, **WINDOW, max_window_layers=1)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "qwen3, all layers with a window": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, **WINDOW, head_dim=8, max_window_layers=0)
    ),
    "mistral, window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=7)),
}
POSITIONS = [[3, 20, 28], [4], [], [0, 8]]


def made(family: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    torch.manual_seed(3)
    model = FAMILIES[family]().to(dtype).eval()
    return LanguageModel(model, byte_tokenizer(), family, "", torch.device("cpu"))


def rows_of(seed: int = 0) -> list[list[int]]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 300, (length,), generator=random).tolist() for length in (30, 5, 17, 9)]


def read(lm: LanguageModel, *, packs: bool, recomputes: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states, and the gradient of a sum of them with unlike weights."""
    lm.packs, lm.recomputes = packs, recomputes
    lm.model.zero_grad(set_to_none=True)
    hidden_TD = hidden_states(lm, rows_of(), POSITIONS)
    (hidden_TD * torch.arange(hidden_TD.numel()).view_as(hidden_TD).sin()).sum().backward()
    gradients = [p.grad.flatten() for p in lm.model.parameters() if p.grad is not None]
    return hidden_TD.detach(), torch.cat(gradients)


def assert_same(got: tuple[torch.Tensor, ...], want: tuple[torch.Tensor, ...]) -> None:
    for a, b in zip(got, want, strict=True):
        assert float(b.abs().max()) > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_gradient_are_those_of_padded_rows(family: str) -> None:
    lm = made(family)
    assert not why_not(lm)
    want = read(lm, packs=False, recomputes=False)
    for packs, recomputes in ((True, False), (False, True), (True, True)):
        assert_same(read(lm, packs=packs, recomputes=recomputes), want)
    assert training_error(lm).equal


@pytest.mark.parametrize("family", ["qwen3", "qwen2, some layers with a window"])
def test_a_row_does_not_see_its_neighbours(family: str) -> None:
    lm = made(family)
    lm.packs = True
    rows = rows_of()
    everywhere = [range(len(row)) for row in rows]
    before = hidden_states(lm, rows, everywhere).split([len(row) for row in rows])
    rows[1] = [(token + 1) % 300 for token in rows[1]]
    after = hidden_states(lm, rows, everywhere).split([len(row) for row in rows])
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True, True]


def test_packed_rows_that_saw_each_other_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = made("qwen3")
    lm.packs = True
    real = packing._attention

    def leaking(*args: Any, packed_lengths: tuple[int, ...], **kwargs: Any) -> Any:
        return real(*args, packed_lengths=(sum(packed_lengths),), **kwargs)

    monkeypatch.setattr(packing, "_attention", leaking)
    packing._register.cache_clear()
    try:
        assert not training_error(lm).equal
    finally:
        monkeypatch.undo()
        packing._register.cache_clear()
        packing._register()
    assert training_error(lm).equal


def test_with_adapters_packed_and_computed_again_the_gradient_is_theirs() -> None:
    pytest.importorskip("peft")
    lm = made("qwen3")
    add_adapters(lm, LoraSettings(rank=2, alpha=4, targets="all-linear"), seed=0)
    for name, p in lm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    want = read(lm, packs=False, recomputes=False)
    assert_same(read(lm, packs=True, recomputes=True), want)
    assert all(p.grad is None for name, p in lm.model.named_parameters() if ".lora_" not in name)


def test_layers_that_are_computed_again_keep_little() -> None:
    lm = made("qwen3")
    kept: dict[bool, int] = {}
    for recomputes in (False, True):
        lm.recomputes = recomputes
        seen: dict[int, int] = {}

        def keep(tensor: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden_states(lm, [[7] * 200], [range(200)])
        kept[recomputes] = sum(seen.values())
    # Of three layers one is kept whole, and of the others the inputs.
    assert kept[True] < 0.6 * kept[False]


def test_a_model_is_left_as_it_was() -> None:
    lm = made("llama")
    read(lm, packs=True, recomputes=True)
    assert lm.model.config._attn_implementation == "sdpa"
    assert len(layers_of(lm)) == 3
    assert not any("forward" in vars(layer) for layer in layers_of(lm))
    lm.packs = True
    with pytest.raises(IndexError):
        hidden_states(lm, [[1, 2], [10_000, 3]], [[1], [1]])  # no such token: the forward fails
    assert lm.model.config._attn_implementation == "sdpa"


def test_what_cannot_be_packed_says_why() -> None:
    lm = made("qwen3")
    lm.model.config._attn_implementation = "eager"
    assert why_not(lm) == "its attention is eager and would have to be sdpa"
    stretched = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    lm = LanguageModel(LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=stretched)).eval(),
                       byte_tokenizer(), "x", "", torch.device("cpu"))  # fmt: skip
    assert why_not(lm) == "its rotary frequencies depend on the length of a sequence"

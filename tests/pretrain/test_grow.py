"""A grown model computes what the small one did, and every part of it can learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pretrain.grow import grow, layer_sources
from pretrain.learner import build_model


def model(layers: int, kv_heads: int, hidden: int = 24, seed: int = 0) -> Any:
    sizes = {"hidden": hidden, "layers": layers, "heads": 4, "kv_heads": kv_heads, "head_dim": 8}
    return build_model({**sizes, "feed_forward": 32, "context": 64}, 50, seed=seed).eval()


@pytest.mark.parametrize(("layers", "kv_heads"), [(2, 1), (2, 4), (3, 1), (5, 2)])
def test_a_grown_model_computes_the_same(layers: int, kv_heads: int) -> None:
    small, large = model(2, 1), model(layers, kv_heads, seed=1)
    ids = torch.randint(50, (3, 11), generator=torch.Generator().manual_seed(0))
    before = large(input_ids=ids).logits
    grow(small, large)
    after, wanted = large(input_ids=ids).logits, small(input_ids=ids).logits
    assert not torch.allclose(before, wanted, atol=1e-3)
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=1e-5)

    after.sum().backward()
    outputs = [p for n, p in large.named_parameters() if "o_proj" in n or "down_proj" in n]
    assert all(p.grad.abs().sum() > 0 for p in outputs)


def test_added_layers_are_spread() -> None:
    assert layer_sources(4, 6) == [0, 1, 1, 2, 3, 3]
    assert layer_sources(4, 4) == [0, 1, 2, 3]


def test_a_model_cannot_shrink_or_change_its_width() -> None:
    with pytest.raises(ValueError, match="3 layers and 1 key/value heads a model cannot grow to 2 and 1"):
        grow(model(3, 1), model(2, 1))
    with pytest.raises(ValueError, match="hidden_size differ"):
        grow(model(2, 1), model(2, 1, hidden=32))

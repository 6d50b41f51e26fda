"""What a causal LM takes in memory, by its config alone: no weights are read.

Counted for the layers that Llama and Qwen have (norm, attention with rotary positions, norm, gated
feed-forward, in transformers' own modules); for others it is an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes. size: bytes of a weight. parameters: all of them, tied ones once, adapters included.
    trained: those that learn; None where all do."""

    parameters: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    vocabulary: int
    normed_heads: bool
    """Whether queries and keys have a norm of their own (Qwen3)."""
    size: int
    trained: int | None = None

    @property
    def learning(self) -> int:
        """Parameters that are trained, where any are."""
        return self.parameters if self.trained is None else self.trained

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.parameters * self.size

    @property
    def cached(self) -> int:
        """Bytes that a token's keys and values take."""
        return 2 * self.layers * self.kv_heads * self.head_width * self.size

    @property
    def kept_of_layer(self) -> int:
        """Bytes of one layer that a token keeps for the backward pass.

        Norms work in float32 and keep their input in it; they, and every linear layer, keep what they
        multiply. For Qwen3-1.7B in bfloat16 this is 112,640; measured on an H100 were 114,700 (forward and
        backward of 4,096 to 16,384 tokens).
        """
        size, queries, keys = self.size, self.heads * self.head_width, self.kv_heads * self.head_width
        normed = 4 + 2 * size
        of_heads = (normed if self.normed_heads else size) * (queries + keys)
        return 2 * normed * self.width + of_heads + size * (keys + queries) + 4 * size * self.feed_forward

    @property
    def working(self) -> int:
        """Bytes that a token takes within one layer of a forward that keeps nothing."""
        return self.size * (3 * self.feed_forward + 6 * self.width + 2 * self.heads * self.head_width)

    def activations(self, tokens: int, *, checkpointed: bool = False) -> int:
        """Bytes that a forward over so many tokens keeps for the backward pass; `checkpointed`: only each
        layer's input, and one layer at a time computed again."""
        if checkpointed:
            return tokens * (self.layers * self.width * self.size + self.kept_of_layer)
        return tokens * self.layers * self.kept_of_layer


@dataclass(frozen=True, slots=True)
class HeadShape(Shape):
    """A model whose head alone is here: its layers, keys and values are elsewhere."""

    @property
    def working(self) -> int:
        return 0


def head_shape(rows: int, width: int, size: int, *, kept: bool = True) -> HeadShape:
    """A head of rows × width numbers of `size` bytes, and its states; not `kept`: one that holds no weights,
    and makes its distributions of the states alone."""
    return HeadShape(rows * width * kept, 0, width, 0, 0, 0, 0, rows, False, size)


def shape_of(config: Any, size: int, parameters: int | None = None, trained: int | None = None) -> Shape:
    """The shape that a transformers config describes; `parameters` where they have been counted. trained:
    those of its adapters, where it has some."""
    config = config.get_text_config()
    heads = int(config.num_attention_heads)
    head_width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Shape(
        parameters=_counted(config) if parameters is None else parameters,
        layers=int(config.num_hidden_layers),
        width=int(config.hidden_size),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_width=head_width,
        feed_forward=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        vocabulary=int(config.vocab_size),
        normed_heads="qwen3" in str(config.model_type),
        size=size,
        trained=trained,
    )


def _counted(config: Any) -> int:
    return sum(p.numel() for p in weightless(config).parameters())


def weightless(config: Any) -> nn.Module:
    """The architecture of a causal LM, made without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model

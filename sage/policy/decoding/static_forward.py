"""A plain Llama's or Qwen's layers over keys and values of fixed size, as functions of fixed shapes.

Attention is torch's own over the first positions, as many as the longest live row has, each key/value head
read once for all its query heads (`enable_gqa`); what a shorter row does not have is masked, and adds exact
zeros.

Shape suffixes: S slots, B rows of a forward (S, or 1), Q new tokens of each, N = B · Q, H query heads,
J key/value heads, D head width, L positions of a slot, K positions read, W model width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sage.policy.models.load import LanguageModel


class Layers:
    """The model's layers over the keys and values [S, J, L, D] of each."""

    def __init__(self, lm: LanguageModel) -> None:
        config = lm.model.config
        self.lm = lm
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._base: Any = lm.model.base_model
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def allocate(self, slots: int, length: int) -> None:
        """Zeros: what is masked must be a number all the same. What was cached before is kept."""
        like: Any = self._base.layers[0].self_attn
        shape = (slots, self.kv_heads, length, like.head_dim)
        for caches in (self._keys, self._values):
            grown = []
            for number in range(len(self._base.layers)):
                new = torch.zeros(shape, device=self.lm.device, dtype=self.lm.model.dtype)
                if caches:
                    old, caches[number] = caches[number], new
                    new[:, :, : old.shape[2]] = old
                grown.append(new)
            caches[:] = grown

    @torch.inference_mode()
    def copy(self, source: int, target: int, n: int) -> None:
        """The first `n` positions of slot `source` serve slot `target` too."""
        for cached in (*self._keys, *self._values):
            cached[target, :, :n] = cached[source, :, :n]

    def of_all(self, given_3BQ: Tensor, _slot_1: Tensor, positions: int) -> Tensor:
        """Every slot is a row: the caches are read in place."""
        return self._forward(given_3BQ, lambda cache: cache[:, :, :positions], positions)

    def of_one_slot(self, given_3BQ: Tensor, slot_1: Tensor, positions: int) -> Tensor:
        """One slot is the only row."""

        def read(cache: Tensor) -> Tensor:
            return cache[:, :, :positions].index_select(0, slot_1)

        return self._forward(given_3BQ, read, positions)

    def _forward(self, given_3BQ: Tensor, read: Callable[[Tensor], Tensor], positions: int) -> Tensor:
        """Normed hidden states [B · Q, W]."""
        ids_BQ, see_BQ, place_BQ = given_3BQ
        device = given_3BQ.device
        length = self._keys[0].shape[2]
        place_BQJ = place_BQ[:, :, None] + torch.arange(self.kv_heads, device=device) * length
        see_B1QK = torch.arange(positions, device=device) <= see_BQ[:, None, :, None]
        hidden_BQW = self._base.embed_tokens(ids_BQ)
        cos_BQD, sin_BQD = self._base.rotary_emb(hidden_BQW, see_BQ)
        angles = (cos_BQD[:, :, None], sin_BQD[:, :, None])
        for number, layer in enumerate(self._base.layers):
            attention = layer.self_attn
            normed_BQW = layer.input_layernorm(hidden_BQW)
            query_BQHD, key_BQJD, value_BQJD = self._projected(attention, normed_BQW, angles)
            for cached, new_BQJD in ((self._keys[number], key_BQJD), (self._values[number], value_BQJD)):
                flat_ND = cached.view(-1, cached.shape[-1])
                flat_ND.index_copy_(0, place_BQJ.flatten(), new_BQJD.flatten(0, 2))
            mixed_BHQD = scaled_dot_product_attention(
                query_BQHD.transpose(1, 2),
                read(self._keys[number]),
                read(self._values[number]),
                attn_mask=see_B1QK,
                scale=attention.scaling,
                enable_gqa=self.heads != self.kv_heads,
            )
            hidden_BQW = hidden_BQW + attention.o_proj(mixed_BHQD.transpose(1, 2).flatten(2))
            hidden_BQW = hidden_BQW + layer.mlp(layer.post_attention_layernorm(hidden_BQW))
        return self._base.norm(hidden_BQW).flatten(0, 1)

    def _projected(
        self, attention: Any, normed_BQW: Tensor, angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both turned by their position) and values [B, Q, heads, D]."""
        shape = (*normed_BQW.shape[:2], -1, attention.head_dim)
        query = attention.q_proj(normed_BQW).view(shape)
        key = attention.k_proj(normed_BQW).view(shape)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        return _rotate(query, *angles), _rotate(key, *angles), attention.v_proj(normed_BQW).view(shape)


def _rotate(x_BQHD: Tensor, cos_BQ1D: Tensor, sin_BQ1D: Tensor) -> Tensor:
    left, right = x_BQHD.chunk(2, dim=-1)
    return x_BQHD * cos_BQ1D + torch.cat((-right, left), dim=-1) * sin_BQ1D


class Program:
    """One forward of one shape over input tensors that stay where they are: on CUDA a graph."""

    def __init__(
        self,
        forward: Callable[[Tensor, Tensor, int], Tensor],
        shape: tuple[int, int],
        positions: int,
        device: torch.device,
        pool: Any,
    ) -> None:
        self._forward, self._positions, self._pool = forward, positions, pool
        self._given_3BQ = torch.zeros((3, *shape), dtype=torch.int64, device=device)
        self._slot_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self._graph: Any = None
        self._hidden_NW: Tensor | None = None

    def run(self, given_3BQ: np.ndarray, slot: int) -> Tensor:
        """The forward's result; the next run overwrites it."""
        self._given_3BQ.copy_(torch.from_numpy(given_3BQ))
        self._slot_1.fill_(slot)
        if self._given_3BQ.device.type != "cuda":
            return self._call()
        if self._graph is None:
            self._capture()
        self._graph.replay()
        assert self._hidden_NW is not None
        return self._hidden_NW

    def _call(self) -> Tensor:
        return self._forward(self._given_3BQ, self._slot_1, self._positions)

    def _capture(self) -> None:
        """Once by hand, as libraries set themselves up at a first call; a forward may run twice, as it writes
        the same values to the same places."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._call()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=self._pool):
            self._hidden_NW = self._call()

"""A key/value cache for many episodes side by side, kept across turns and never copied to grow by a token.

Invariant: row `b` holds exactly the tokens of one conversation at positions `0..length_b-1`; whatever lies
beyond is zero or stale and masked out. Rows in use are always a contiguous prefix or slice, so that reading
the cache is a view.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class _Window:
    """Where the current forward writes and reads; shared by all layers."""

    rows: slice = slice(0, 0)
    positions_BQ: torch.Tensor
    kv_length: int = 0


class _SlotLayer(CacheLayerMixin):
    is_sliding = False
    keys: torch.Tensor | None
    values: torch.Tensor | None
    is_initialized: bool

    def __init__(self, window: _Window, slots: int) -> None:
        super().__init__()
        self.window = window
        self.slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self._allocate(key_states, value_states, 256)

    def _allocate(self, like_k: torch.Tensor, like_v: torch.Tensor, length: int) -> None:
        heads = like_k.shape[1]
        keys = like_k.new_zeros(self.slots, heads, length, like_k.shape[-1])
        values = like_v.new_zeros(self.slots, heads, length, like_v.shape[-1])
        if self.is_initialized and self.keys is not None and self.values is not None:
            old = self.keys.shape[2]
            keys[:, :, :old] = self.keys
            values[:, :, :old] = self.values
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [B, H, Q, D] at the window's positions; return views [B, H, kv_length, D]."""
        window = self.window
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        # Junk columns of a ragged forward may write past the mask's reach, up to one chunk further.
        need = window.kv_length + key_states.shape[2]
        if need > self.keys.shape[2]:
            self._allocate(key_states, value_states, max(need, 3 * self.keys.shape[2] // 2))
        keys, values = self.keys[window.rows], self.values[window.rows]
        batch = torch.arange(keys.shape[0], device=keys.device)[:, None]
        keys[batch, :, window.positions_BQ] = key_states.transpose(1, 2)
        values[batch, :, window.positions_BQ] = value_states.transpose(1, 2)
        return keys[:, :, : window.kv_length], values[:, :, : window.kv_length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.kv_length, 0

    def get_seq_length(self) -> int:
        return self.window.kv_length

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """All layers of the cache for up to `slots` rows."""

    def __init__(self, slots: int, n_layers: int) -> None:
        self.window = _Window()
        super().__init__(layers=[_SlotLayer(self.window, slots) for _ in range(n_layers)])

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of row `source` over row `target`."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[target, :, :length] = layer.keys[source, :, :length]
                layer.values[target, :, :length] = layer.values[source, :, :length]

"""The engine for small models on a CPU: a plain Llama's or Qwen's modules over packed rows.

Against the rectangle of `sage.policy.decoding.padded`: no row is padded to another's new tokens, every row's
attention reads exactly its own live positions (and each key/value head once for all its query heads), rows
that rest cost nothing, the last layer is finished only where logits are wanted, a row that leaves is not
copied, and a prefix that several new rows share is computed once. The arithmetic of a token is the model's
own; sums run in another order, so values agree to rounding.

Shape suffixes: N new tokens of all rows, H query heads, J key/value heads, G = H / J, D head width, L
positions of a slot, W model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sage.errors import ModelError
from sage.policy.decoding.slots import InSlots
from sage.policy.models.load import LanguageModel

ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Classes of transformers whose layers are norm, attention with rotary positions, norm, feed-forward."""

FORWARD_TOKENS = 1024
"""Most new tokens of one forward (a longer row goes alone): activations then stay near the processor."""
PIECE = 128
"""Most queries of one attention call: a long prompt's earlier pieces need not look at its later ones."""


def knows(lm: LanguageModel) -> bool:
    """Whether this engine computes exactly this model: full attention and fixed rotary frequencies."""
    model = lm.model
    if type(model).__name__ not in ARCHITECTURES or not type(model).__module__.startswith("transformers."):
        return False
    config = model.config
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    rope = getattr(config, "rope_parameters", None) or {}
    return set(layers) == {"full_attention"} and rope.get("rope_type") in ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True)
class _Look:
    """One attention call: queries a..b (G per token) of the packed ones, over the first `seen` positions of
    `slot`; `mask` is None where every query sees all of them."""

    a: int
    b: int
    slot: int
    seen: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class _Copy:
    """The first `n` positions of `source` serve `target` too."""

    source: int
    target: int
    n: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A row's share of a forward: `ids` go to positions from `start` on, logits after the last `keep`."""

    row: int
    slot: int
    start: int
    ids: Sequence[int]
    keep: int
    copy: _Copy | None

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


class PackedEngine(InSlots):
    """See `sage.policy.decoding.engines.Engine`. Reads the model's parameters live: they may be trained in
    between.

    Raises ModelError where it does not know the model.
    """

    def __init__(self, lm: LanguageModel, slots: int) -> None:
        if not knows(lm):
            raise ModelError("it does not know this architecture")
        super().__init__(slots)
        self.lm = lm
        config = lm.model.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._group = self._heads // self._kv_heads
        self._base: Any = lm.model.base_model
        self._width: int = self._base.layers[0].self_attn.head_dim
        self._capacity = 0
        self._keys_JLD: list[Tensor] = []
        """Per layer [slots, J, L, D]."""
        self._values_JLD: list[Tensor] = []

    @torch.inference_mode()
    def extend(
        self,
        rows: slice,
        ids: Sequence[Sequence[int]],
        keep: Sequence[int],
        shared: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        self._reserve(self._longest(rows, ids))
        parts = []
        for b, row in enumerate(range(len(self.lengths))[rows]):
            source, n = shared[b] if shared else (row, 0)
            if ids[b]:
                copy = _Copy(self._slot[source], self._slot[row], n) if n else None
                parts.append(_Part(row, self._slot[row], self.lengths[row] + n, ids[b][n:], keep[b], copy))
        logits_NV = torch.cat([self._forward(group) for group in _forwards(parts)])
        for part in parts:
            self.lengths[part.row] = part.start + len(part.ids)
        return logits_NV

    def _forward(self, parts: list[_Part]) -> Tensor:
        """Logits [Σ keep, V]; every part's keys and values are in the cache before any layer's attention."""
        device = self.lm.device
        positions = [p for part in parts for p in range(part.start, part.end)]
        place_NJ = self._places(parts, positions)
        looks = self._looks([(part.slot, part.start, part.end) for part in parts])
        # Logits are wanted after the last `keep` tokens of each part.
        last_looks = self._looks([(part.slot, part.end - part.keep, part.end) for part in parts])
        wanted = _wanted(parts)
        ids = [i for part in parts for i in part.ids]
        copies = [part.copy for part in parts if part.copy is not None]

        hidden_NW = self._base.embed_tokens(torch.tensor(ids, device=device))
        rotary = self._rotary(torch.tensor(positions, device=device), hidden_NW)
        final = len(self._base.layers) - 1
        for number, layer in enumerate(self._base.layers):
            attention = layer.self_attn
            normed_NW = layer.input_layernorm(hidden_NW)
            self._remember(number, attention, normed_NW, rotary, place_NJ)
            self._copy(number, copies)
            if number == final and len(wanted) < len(positions):
                wanted_N = torch.tensor(wanted, device=device)
                hidden_NW, normed_NW = hidden_NW[wanted_N], normed_NW[wanted_N]
                rotary = (rotary[0][wanted_N], rotary[1][wanted_N])
                looks = last_looks
            query_NHD = attention.q_proj(normed_NW).view(-1, self._heads, self._width)
            if hasattr(attention, "q_norm"):
                query_NHD = attention.q_norm(query_NHD)
            mixed_NW = self._attend(number, _rotate(query_NHD, *rotary), looks, attention.scaling)
            hidden_NW = hidden_NW + attention.o_proj(mixed_NW)
            hidden_NW = hidden_NW + layer.mlp(layer.post_attention_layernorm(hidden_NW))
        return self.lm.model.get_output_embeddings()(self._base.norm(hidden_NW)).float()

    def _places(self, parts: list[_Part], positions: list[int]) -> Tensor:
        """Where in a layer's flat cache the keys of each packed token go, [N·J], J key/value heads."""
        first = [part.slot * self._kv_heads * self._capacity for part in parts for _ in part.ids]
        head_J = torch.arange(self._kv_heads) * self._capacity
        place_N = torch.tensor([a + b for a, b in zip(first, positions, strict=True)])
        return (place_N[:, None] + head_J).to(self.lm.device).flatten()

    def _remember(
        self,
        layer: int,
        attention: Any,
        normed_NW: Tensor,
        rotary: tuple[Tensor, Tensor],
        place_NJ: Tensor,
    ) -> None:
        """Put the tokens' keys and values into the layer's cache."""
        key_NJD = attention.k_proj(normed_NW).view(-1, self._kv_heads, self._width)
        value_NJD = attention.v_proj(normed_NW).view(-1, self._kv_heads, self._width)
        if hasattr(attention, "k_norm"):
            key_NJD = attention.k_norm(key_NJD)
        key_NJD = _rotate(key_NJD, *rotary)
        self._keys_JLD[layer].view(-1, self._width).index_copy_(0, place_NJ, key_NJD.flatten(0, 1))
        self._values_JLD[layer].view(-1, self._width).index_copy_(0, place_NJ, value_NJD.flatten(0, 1))

    def _copy(self, layer: int, copies: Sequence[_Copy]) -> None:
        """Give rows the beginning that they share with another, once it is in the layer's cache."""
        for copy in copies:
            for cached_JLD in (self._keys_JLD[layer], self._values_JLD[layer]):
                cached_JLD[copy.target, :, : copy.n] = cached_JLD[copy.source, :, : copy.n]

    def _attend(self, layer: int, query_NHD: Tensor, looks: list[_Look], scale: float) -> Tensor:
        """[N, H·D]. A key/value head's G query heads stand under one another, so that it is read once."""
        count = len(query_NHD)
        query = query_NHD.view(count, self._kv_heads, self._group, self._width).transpose(0, 1)
        query_J1ND = query.reshape(self._kv_heads, 1, count * self._group, self._width)
        keys, values = self._keys_JLD[layer].unsqueeze(2), self._values_JLD[layer].unsqueeze(2)

        @torch.inference_mode()
        def mix(some: Sequence[_Look]) -> list[Tensor]:
            return [
                scaled_dot_product_attention(
                    query_J1ND[:, :, look.a : look.b],
                    keys[look.slot, :, :, : look.seen],
                    values[look.slot, :, :, : look.seen],
                    attn_mask=look.mask,
                    scale=scale,
                )
                for look in some
            ]

        # A call is too small for torch to split over threads, but the calls are independent.
        share = -(-len(looks) // torch.get_num_threads())
        parts = [looks[a : a + share] for a in range(0, len(looks), share)]
        done = _helpers().map(mix, parts) if len(parts) > 1 else map(mix, parts)
        mixed_J1ND = torch.cat(list(chain(*done)), dim=2)
        mixed = mixed_J1ND.view(self._kv_heads, count, self._group, self._width).transpose(0, 1)
        return mixed.reshape(count, self._heads * self._width)

    def _looks(self, spans: Sequence[tuple[int, int, int]]) -> list[_Look]:
        """For spans (slot, first position, end) of packed queries."""
        looks, offset = [], 0
        for slot, start, end in spans:
            for first in range(start, end, PIECE):
                seen = min(first + PIECE, end)
                width = (seen - first) * self._group
                # Query i of the piece sees positions up to first + i: a window of the staircase.
                mask = None
                if seen - first > 1:
                    left = self._capacity - first
                    mask = self._stairs[:width, left : left + seen]
                looks.append(_Look(offset, offset + width, slot, seen, mask))
                offset += width
        return looks

    def _rotary(self, positions_N: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._base.rotary_emb(like, positions_N[None])
        return cos[0, :, None], sin[0, :, None]

    def _reserve(self, length: int) -> None:
        """Make room for `length` positions in every slot."""
        if length <= self._capacity:
            return
        old, self._capacity = self._capacity, max(256, length, 3 * self._capacity // 2)
        shape = (len(self._slot), self._kv_heads, self._capacity, self._width)
        device, dtype = self.lm.device, self.lm.model.dtype
        for caches in (self._keys_JLD, self._values_JLD):
            grown = [torch.empty(shape, device=device, dtype=dtype) for _ in self._base.layers]
            for new, cached in zip(grown, list(caches), strict=False):
                new[:, :, :old] = cached
            caches[:] = grown
        # Row i·G+g is query i: 0 up to column `capacity` + i, -inf right of it.
        column = torch.arange(self._capacity + PIECE, device=device)
        row = torch.arange(PIECE, device=device).repeat_interleave(self._group)
        stairs = torch.zeros(len(row), len(column), device=device, dtype=dtype)
        self._stairs = stairs.masked_fill_(column > self._capacity + row[:, None], float("-inf"))


def _rotate(x_NHD: Tensor, cos_N1D: Tensor, sin_N1D: Tensor) -> Tensor:
    left, right = x_NHD.chunk(2, dim=-1)
    return x_NHD * cos_N1D + torch.cat((-right, left), dim=-1) * sin_N1D


def _wanted(parts: Sequence[_Part]) -> list[int]:
    """Places among the packed tokens of the last `keep` of each part."""
    ends = accumulate(len(part.ids) for part in parts)
    return [n for end, part in zip(ends, parts, strict=True) for n in range(end - part.keep, end)]


def _forwards(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """In order, in groups of about FORWARD_TOKENS."""
    group: list[_Part] = []
    tokens = 0
    for part in parts:
        if group and tokens + len(part.ids) > FORWARD_TOKENS:
            yield group
            group, tokens = [], 0
        group.append(part)
        tokens += len(part.ids)
    if group:
        yield group


@cache
def _helpers() -> ThreadPoolExecutor:
    """One thread per thread of torch's, each of which computes alone."""
    return ThreadPoolExecutor(torch.get_num_threads(), "sage-attention", torch.set_num_threads, (1,))

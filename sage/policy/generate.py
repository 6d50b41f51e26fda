"""Batched decoding with a key/value cache that is kept across turns: history is never encoded twice.

Shape suffixes: B rows in use, Q new tokens per row (right-aligned, ragged rows are padded on the left), K
cached positions, V vocabulary. Padding columns write to positions past the row's end, which are masked and
later overwritten, and may read position 0 only, so that they are never NaN.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np
import torch

from sage.policy.cache import SlotCache
from sage.policy.model import LanguageModel


def stream(*key: object) -> np.random.Generator:
    """A random generator that depends on `key` alone, whatever is sampled before or beside it."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. temperature 0 is greedy. `stop` is a regular expression that ends an answer
    when it matches the answer's text (None: only the model's end tokens do)."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Generated ids (end token included where sampled), their text, and whether the limit cut them."""

    ids: list[int]
    text: str
    truncated: bool


class SlotDecoder:
    """`slots` conversations over one cache. Rows `0..n-1` are in use; the caller keeps them contiguous."""

    def __init__(self, lm: LanguageModel, slots: int) -> None:
        self.lm = lm
        self.cache = SlotCache(slots, lm.model.config.get_text_config().num_hidden_layers)
        self.lengths = [0] * slots
        """Tokens in the cache per row."""

    @torch.inference_mode()
    def release(self, row: int, last: int) -> None:
        """Free `row` by moving row `last` (the last one in use) into it."""
        if row != last:
            self.cache.move(last, row, self.lengths[last])
            self.lengths[row] = self.lengths[last]
        self.lengths[last] = 0

    @torch.inference_mode()
    def extend(self, rows: slice, ids: list[list[int]]) -> torch.Tensor:
        """Append `ids[b]` (at least one each) to row b of `rows`; logits_BV after each row's last token."""
        device = self.lm.device
        starts = self.lengths[rows]
        width = max(map(len, ids))
        kv_length = max(start + len(new) for start, new in zip(starts, ids, strict=True))
        ids_BQ = np.full((len(ids), width), self.lm.pad_id, dtype=np.int64)
        write_BQ = np.empty((len(ids), width), dtype=np.int64)
        see_BQ = np.zeros((len(ids), width), dtype=np.int64)
        for b, (start, new) in enumerate(zip(starts, ids, strict=True)):
            pad = width - len(new)
            ids_BQ[b, pad:] = new
            write_BQ[b, pad:] = see_BQ[b, pad:] = np.arange(start, start + len(new))
            write_BQ[b, :pad] = np.arange(start + len(new), start + width)
        logits_BV = self._forward(rows, ids_BQ, write_BQ, see_BQ, kv_length, device)
        for offset, new in enumerate(ids):
            self.lengths[rows.start + offset] += len(new)
        return logits_BV

    @torch.inference_mode()
    def step(self, rows: slice, last_ids: list[int | None]) -> torch.Tensor:
        """Append one token to each row whose entry is not None; the others stay as they are."""
        starts = np.asarray(self.lengths[rows], dtype=np.int64)[:, None]
        ids_BQ = np.asarray([[self.lm.pad_id if i is None else i] for i in last_ids], dtype=np.int64)
        logits_BV = self._forward(rows, ids_BQ, starts, starts, int(starts.max()) + 1, self.lm.device)
        for offset, token in enumerate(last_ids):
            self.lengths[rows.start + offset] += token is not None
        return logits_BV

    def _forward(
        self,
        rows: slice,
        ids_BQ: np.ndarray,
        write_BQ: np.ndarray,
        see_BQ: np.ndarray,
        kv_length: int,
        device: torch.device,
    ) -> torch.Tensor:
        window = self.cache.window
        window.rows = rows
        window.positions_BQ = torch.from_numpy(write_BQ).to(device)
        window.kv_length = kv_length
        see = torch.from_numpy(see_BQ).to(device)
        mask_B1QK = torch.arange(kv_length, device=device)[None, None, None, :] <= see[:, None, :, None]
        output = self.lm.model(
            input_ids=torch.from_numpy(ids_BQ).to(device),
            attention_mask=mask_B1QK,
            position_ids=see,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def answer(
        self,
        rows: slice,
        prompts: list[list[int]],
        sampling: Sampling,
        uniforms_BT: np.ndarray | None,
        room: list[int],
    ) -> list[Reply]:
        """Feed `prompts` (the ids not yet in the cache) and decode one answer per row.

        uniforms_BT: one number in [0, 1) per row and token (None when greedy). room[b]: tokens that row b
        may still hold, prompt included. The answer's last id is not in the cache yet when this returns: it
        belongs at the head of the row's next prompt.
        """
        count = len(prompts)
        limits = [min(sampling.max_new_tokens, r - len(p)) for r, p in zip(room, prompts, strict=True)]
        answers: list[list[int]] = [[] for _ in range(count)]
        truncated = [False] * count
        live = [limit > 0 for limit in limits]
        pattern = re.compile(sampling.stop) if sampling.stop else None
        end_ids = self.lm.end_ids
        # Rows that start now have a long first prompt; feeding them apart spares the others its padding.
        fresh = next((b for b, n in enumerate(self.lengths[rows]) if n == 0), count)
        parts = [(0, fresh), (fresh, count)]
        logits_BV = torch.cat(
            [self.extend(slice(rows.start + a, rows.start + b), prompts[a:b]) for a, b in parts if a < b]
        )
        t = 0
        while any(live):
            u_B = None if uniforms_BT is None else uniforms_BT[:, t]
            tokens = sample(logits_BV, sampling, u_B)
            feed: list[int | None] = [None] * count
            for b, token in enumerate(tokens):
                if not live[b]:
                    continue
                answers[b].append(token)
                if token in end_ids:
                    live[b] = False
                    continue
                if pattern is not None:
                    text = str(self.lm.tokenizer.decode(answers[b], skip_special_tokens=True))
                    if pattern.search(text):
                        live[b] = False
                        continue
                if len(answers[b]) >= limits[b]:
                    live[b], truncated[b] = False, True
                    continue
                feed[b] = token
            t += 1
            if any(live):
                logits_BV = self.step(rows, feed)
        decode = self.lm.tokenizer.decode
        return [
            Reply(ids, str(decode(ids, skip_special_tokens=True)) if ids else "", cut)
            for ids, cut in zip(answers, truncated, strict=True)
        ]


def sample(logits_BV: torch.Tensor, sampling: Sampling, u_B: np.ndarray | None) -> list[int]:
    """One id per row by inverting the cumulative distribution at u_B; greedy at temperature 0."""
    if sampling.temperature == 0 or u_B is None:
        return logits_BV.argmax(-1).tolist()
    probs_BV = torch.softmax(logits_BV.double() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
        # The smallest set whose mass reaches top_p: a token stays while the mass before it is below top_p.
        keep_BV = sorted_BV.cumsum(-1) - sorted_BV < sampling.top_p
        probs_BV = torch.zeros_like(probs_BV).scatter(-1, order_BV, sorted_BV * keep_BV)
    cumulative_BV = probs_BV.cumsum(-1)
    u = torch.from_numpy(np.ascontiguousarray(u_B)).to(cumulative_BV)[:, None] * cumulative_BV[:, -1:]
    return (
        torch.searchsorted(cumulative_BV, u, right=True)
        .squeeze(-1)
        .clamp_(max=probs_BV.shape[-1] - 1)
        .tolist()
    )


def reply(
    lm: LanguageModel, prompts: list[list[int]], max_new_tokens: int, stop: str | None = None, batch: int = 64
) -> list[Reply]:
    """One greedy reply to each independent prompt, batched by length; order is kept."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    replies: dict[int, Reply] = {}
    sampling = Sampling(0.0, 1.0, max_new_tokens, stop)
    limit = getattr(lm.model.config.get_text_config(), "max_position_embeddings", 1 << 30)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        decoder = SlotDecoder(lm, len(chosen))
        room = [max(limit, len(prompts[i])) for i in chosen]
        done = decoder.answer(slice(0, len(chosen)), [prompts[i] for i in chosen], sampling, None, room)
        replies.update(zip(chosen, done, strict=True))
    return [replies[i] for i in range(len(prompts))]

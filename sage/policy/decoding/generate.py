"""Batched decoding over a kept key/value cache: history is never encoded twice, and guesses save forwards.

Shape suffixes: B rows in use, N positions whose logits are wanted, T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from sage.errors import NotFinite
from sage.policy.decoding.drafts import CONTEXT, Drafts
from sage.policy.decoding.engine import EngineName, make_engine
from sage.policy.models.layers import reach
from sage.policy.models.load import LanguageModel


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


class Answer:
    """One answer while it is decoded: `ids` so far, whether it goes on (`live`), its `limit` in tokens."""

    def __init__(
        self, tokenizer: Any, end_ids: frozenset[int], stop: re.Pattern[str] | None, limit: int
    ) -> None:
        self._tokenizer, self._end_ids, self._stop = tokenizer, end_ids, stop
        self.limit = limit
        self.ids: list[int] = []
        self.live = limit > 0
        self._truncated = False

    def add(self, token: int) -> None:
        """Append a sampled token; the answer ends with an end token, a match of `stop`, or at its limit."""
        self.ids.append(token)
        if token in self._end_ids or (self._stop is not None and self._stop.search(self._text())):
            self.live = False
        elif len(self.ids) >= self.limit:
            self.live, self._truncated = False, True

    def reply(self) -> Reply:
        """What has been decoded."""
        return Reply(self.ids, self._text() if self.ids else "", self._truncated)

    def _text(self) -> str:
        return str(self._tokenizer.decode(self.ids, skip_special_tokens=True))


def begin_answers(
    lm: LanguageModel, sampling: Sampling, prompts: Sequence[Sequence[int]], room: Sequence[int]
) -> list[Answer]:
    """One answer to each prompt, of at most `max_new_tokens` and what the prompt leaves of the `room`."""
    end_ids, stop = lm.end_ids, re.compile(sampling.stop) if sampling.stop else None
    return [
        Answer(lm.tokenizer, end_ids, stop, min(sampling.max_new_tokens, space - len(prompt)))
        for space, prompt in zip(room, prompts, strict=True)
    ]


class Decodes(Protocol):
    """Conversations side by side. Rows `0..n-1` are in use; the caller keeps them contiguous."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that the model has seen."""
        ...

    def release(self, row: int, last: int) -> None:
        """Free `row` by giving its place to row `last` (the last one in use)."""
        ...

    def answer(
        self,
        rows: slice,
        prompts: list[list[int]],
        sampling: Sampling,
        uniforms_BT: np.ndarray | None,
        room: list[int],
    ) -> list[Reply]:
        """Append `prompts` (what the rows have not seen yet) and decode one answer per row.

        uniforms_BT: one number in [0, 1) per row and token (None when greedy). room[b]: tokens that row b
        may still hold, prompt included. The answer's last id has not been seen when this returns: it belongs
        at the head of the row's next prompt.
        """
        ...


class Decoder:
    """`Decodes` over one engine with room for `slots` rows.

    draft_tokens: most tokens that are guessed ahead (`sage.policy.decoding.drafts`), none on an engine that
    takes no token back; changes speed, never an answer.
    """

    def __init__(
        self, lm: LanguageModel, slots: int, *, engine: EngineName = "auto", draft_tokens: int = 0
    ) -> None:
        self.lm = lm
        self.engine = make_engine(lm, slots, engine)
        self.draft_tokens = draft_tokens if self.engine.takes_back else 0
        self._drafts = Drafts(slots)

    @property
    def lengths(self) -> list[int]:
        """Tokens in the cache per row."""
        return self.engine.lengths

    def release(self, row: int, last: int) -> None:
        """Free `row` by giving its place to row `last` (the last one in use)."""
        self.engine.release(row, last)
        self._drafts.release(row, last)

    def answer(
        self,
        rows: slice,
        prompts: list[list[int]],
        sampling: Sampling,
        uniforms_BT: np.ndarray | None,
        room: list[int],
        shared: list[tuple[int, int]] | None = None,
    ) -> list[Reply]:
        """See `Decodes.answer`; `shared` is the engine's."""
        lengths = self.engine.lengths
        answers = begin_answers(self.lm, sampling, prompts, room)

        # Rows without room are fed all the same: their prompt belongs in the cache.
        pending = [list(prompt) for prompt in prompts]
        while any(pending):
            drafts = [
                self._draft(rows.start + b, prompts[b], answer) if answer.live else []
                for b, answer in enumerate(answers)
            ]
            feed = [new + draft for new, draft in zip(pending, drafts, strict=True)]
            keep = [len(draft) + 1 if new else 0 for new, draft in zip(pending, drafts, strict=True)]
            logits_NV = self.engine.extend(rows, feed, keep, shared)
            shared = None
            u_N = None
            if uniforms_BT is not None:
                u_N = np.concatenate(
                    [
                        uniforms_BT[b, len(answer.ids) : len(answer.ids) + kept]
                        for b, (answer, kept) in enumerate(zip(answers, keep, strict=True))
                    ]
                )
            # A padded vocabulary has rows that no tokenizer id stands for.
            tokens = iter(sample(logits_NV[:, : self.lm.vocabulary], sampling, u_N))
            for b, draft in enumerate(drafts):
                if not pending[b]:
                    continue
                sampled = [next(tokens) for _ in range(len(draft) + 1)]
                pending[b] = []
                answer = answers[b]
                if not answer.live:
                    continue
                right = 0
                for guess, token in zip([*draft, None], sampled, strict=True):
                    answer.add(token)
                    if not answer.live or token != guess:
                        break
                    right += 1
                lengths[rows.start + b] -= len(draft) - right
                if answer.live:
                    pending[b] = answer.ids[-1:]
        for b, answer in enumerate(answers):
            self._drafts.learn(rows.start + b, prompts[b], answer.ids)
        return [answer.reply() for answer in answers]

    def _draft(self, row: int, prompt: list[int], answer: Answer) -> list[int]:
        """What may follow; it leaves one token of the limit, for the one sampled after the last guess."""
        most = min(self.draft_tokens, answer.limit - len(answer.ids) - 1)
        if most <= 0:
            return []
        return self._drafts.draft(row, [*prompt[-CONTEXT:], *answer.ids[-CONTEXT:]], most)


def sample(logits_BV: torch.Tensor, sampling: Sampling, u_B: np.ndarray | None) -> list[int]:
    """One id per row by inverting the cumulative distribution at u_B; greedy at temperature 0.

    Raises NotFinite where the largest logit of a row is no number: whatever was drawn would be a score.
    """
    if not bool(logits_BV.amax(-1).isfinite().all()):
        raise NotFinite("the logits are not finite (NaN or infinite)")
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
    lm: LanguageModel,
    prompts: list[list[int]],
    max_new_tokens: int,
    stop: str | None = None,
    batch: int = 64,
    engine: EngineName = "auto",
    draft_tokens: int = 10,
) -> list[Reply]:
    """One greedy reply to each independent prompt; order is kept. Prompts that begin alike go together.

    `batch` (prompts side by side), `engine` and `draft_tokens` (most tokens guessed ahead) change speed only.
    """
    if not prompts:
        return []
    replies: dict[int, Reply] = {}
    sampling = Sampling(0.0, 1.0, max_new_tokens, stop)
    limit = reach(lm) or 1 << 30
    decoder = Decoder(lm, min(batch, len(prompts)), engine=engine, draft_tokens=draft_tokens)
    # Neighbours in this order share the most; an engine that pads wants neighbours of one length.
    key = prompts.__getitem__ if decoder.engine.shares else lambda i: len(prompts[i])
    order = sorted(range(len(prompts)), key=key)
    for start in range(0, len(order), batch):
        chosen = [prompts[i] for i in order[start : start + batch]]
        decoder.lengths[:] = [0] * len(decoder.lengths)
        room = [max(limit, len(prompt)) for prompt in chosen]
        shared = shared_prefixes(chosen) if decoder.engine.shares else None
        done = decoder.answer(slice(0, len(chosen)), chosen, sampling, None, room, shared)
        replies.update(zip(order[start : start + batch], done, strict=True))
    return [replies[i] for i in range(len(prompts))]


def shared_prefixes(prompts: list[list[int]]) -> list[tuple[int, int]]:
    """(row before, tokens that both begin with) for each prompt; at least one token of each is its own."""
    shared = [(0, 0)]
    for row, (before, prompt) in enumerate(pairwise(prompts)):
        most = min(len(before), len(prompt) - 1)
        n = next((i for i in range(most) if before[i] != prompt[i]), most)
        shared.append((row, n))
    return shared

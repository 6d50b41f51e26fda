"""Batched decoding over a kept key/value cache: history is never encoded twice, and guesses save forwards.

Shape suffixes: B rows in use, N positions whose logits are wanted, T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch

from sage.errors import NotFinite
from sage.policy.decoding.answer import Answer, Reply, Sampling, stop_pattern
from sage.policy.decoding.drafts import CONTEXT, Drafts
from sage.policy.decoding.engine import EngineName, make_engine
from sage.policy.models.layers import reach
from sage.policy.models.load import LanguageModel
from sage.policy.models.work import decoding_bytes
from sage.records.activity import did
from sage.records.clock import tally

PIECE = 1024
"""Most tokens of a prompt that go through one forward: those who are answering go on in between."""


def stream(*key: object) -> np.random.Generator:
    """A random generator that depends on `key` alone, whatever is sampled before or beside it."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


class Decodes(Protocol):
    """Conversations side by side. Rows `0..n-1` are in use; the caller keeps them contiguous."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that the model has seen."""
        ...

    def release(self, row: int, last: int) -> None:
        """Free `row` by giving its place to row `last` (the last one in use)."""
        ...

    def begin(
        self, row: int, prompt: list[int], sampling: Sampling, uniforms_T: np.ndarray | None, room: int
    ) -> None:
        """Ask `row` for an answer to `prompt` (what it has not seen yet); `step` decodes it.

        uniforms_T: one number in [0, 1) per token (None when greedy). room: tokens that the row may still
        hold, prompt included. All rows that are asked at a time share one `sampling`.
        """
        ...

    def step(self) -> list[tuple[int, Reply]]:
        """Go on with all rows that were asked; those whose answer is complete, with it.

        The answer's last id has not been seen: it belongs at the head of the row's next prompt.
        """
        ...


@dataclass(slots=True)
class _Work:
    """A row that was asked: `pending` goes through the model next."""

    prompt: list[int]
    answer: Answer
    uniforms_T: np.ndarray | None
    pending: list[int]


class Decoder:
    """`Decodes` over one engine with `slots` rows of about `room` tokens (None: not known), of which at most
    `rows` (None: all) will be in use at a time.

    draft_tokens: most tokens that are guessed ahead (`sage.policy.decoding.drafts`), none on an engine that
    takes no token back; changes speed, never an answer.
    """

    def __init__(
        self,
        lm: LanguageModel,
        slots: int,
        *,
        engine: EngineName = "auto",
        draft_tokens: int = 0,
        rows: int | None = None,
        room: int | None = None,
    ) -> None:
        self.lm = lm
        self.engine = make_engine(lm, slots, engine, rows=rows, room=room, guesses=draft_tokens)
        self.draft_tokens = draft_tokens if self.engine.takes_back else 0
        self._drafts = Drafts(slots)
        self._work: list[_Work | None] = [None] * slots
        self._sampling: Sampling | None = None
        self._stop: re.Pattern[str] | None = None
        self._end_ids = lm.end_ids
        self._weight_bytes, self._cached_bytes = decoding_bytes(lm)

    @property
    def lengths(self) -> list[int]:
        """Tokens in the cache per row."""
        return self.engine.lengths

    def release(self, row: int, last: int) -> None:
        """Free `row` by giving its place to row `last` (the last one in use)."""
        self.engine.release(row, last)
        self._drafts.release(row, last)
        self._work[row], self._work[last] = self._work[last], None

    def begin(
        self, row: int, prompt: list[int], sampling: Sampling, uniforms_T: np.ndarray | None, room: int
    ) -> None:
        """See `Decodes.begin`. Raises ValueError where others are being sampled in another way."""
        if sampling != self._sampling:
            if any(self._work):
                raise ValueError("Rows that are decoded side by side are sampled in one way.")
            self._sampling, self._stop = sampling, stop_pattern(sampling)
        answer = Answer(
            self.lm.tokenizer, self._end_ids, self._stop, min(sampling.max_new_tokens, room - len(prompt))
        )
        self._work[row] = _Work(prompt, answer, uniforms_T, list(prompt))

    def step(self, shared: list[tuple[int, int]] | None = None) -> list[tuple[int, Reply]]:
        """One forward (see `Decodes.step`): a token for each row that is answering, with guesses behind it,
        and of each new prompt the next `PIECE` tokens. `shared` is the engine's, where all prompts are
        new."""
        asked = [row for row, work in enumerate(self._work) if work is not None]
        rows = slice(asked[0], asked[-1] + 1)
        feed: list[list[int]] = []
        drafts: list[list[int]] = []
        for row in range(rows.start, rows.stop):
            work = self._work[row]
            new, draft = ([], []) if work is None else self._next(row, work, shared is not None)
            feed.append(new + draft)
            drafts.append(draft)
        keep = [len(draft) + 1 if new else 0 for new, draft in zip(feed, drafts, strict=True)]
        logits_NV = self.engine.extend(rows, feed, keep, shared)
        live = sum(n for n, new in zip(self.lengths[rows], feed, strict=True) if new)
        tally(read=self._weight_bytes + live * self._cached_bytes)
        # A padded vocabulary has rows that no tokenizer id stands for.
        tokens = iter(self._sample(logits_NV[:, : self.lm.vocabulary], rows, keep))
        made = 0
        done: list[tuple[int, Reply]] = []
        for row, new, draft in zip(range(rows.start, rows.stop), feed, drafts, strict=True):
            work = self._work[row]
            if work is None or not new:
                continue
            sampled = [next(tokens) for _ in range(len(draft) + 1)]
            work.pending = work.pending[len(new) - len(draft) :]
            if not work.pending:
                made -= len(work.answer.ids)
                self._take(row, work, draft, sampled)
                made += len(work.answer.ids)
            if not work.pending:
                self._work[row] = None
                self._drafts.learn(row, work.prompt, work.answer.ids)
                done.append((row, work.answer.reply()))
        did(tokens=made)
        return done

    def answer(
        self,
        prompts: list[list[int]],
        sampling: Sampling,
        uniforms_BT: np.ndarray | None,
        room: list[int],
        shared: list[tuple[int, int]] | None = None,
    ) -> list[Reply]:
        """`answers` of this decoder; `shared` says what the prompts share (`shared_prefixes`)."""
        return answers(self, prompts, sampling, uniforms_BT, room, partial(self.step, shared))

    def _next(self, row: int, work: _Work, whole: bool) -> tuple[list[int], list[int]]:
        """What goes through the model next, and guesses behind it."""
        if len(work.pending) > PIECE and not whole:
            return work.pending[:PIECE], []
        return work.pending, self._draft(row, work.prompt, work.answer) if work.answer.live else []

    def _sample(self, logits_NV: torch.Tensor, rows: slice, keep: Sequence[int]) -> list[int]:
        sampling = self._sampling
        assert sampling is not None
        u_N = None
        if sampling.temperature > 0:
            parts = []
            for work, kept in zip(self._work[rows], keep, strict=True):
                if work is not None and work.uniforms_T is not None:
                    first = len(work.answer.ids)
                    parts.append(work.uniforms_T[first : first + kept])
            u_N = np.concatenate(parts) if parts else None
        return sample(logits_NV, sampling, u_N)

    def _take(self, row: int, work: _Work, draft: list[int], sampled: list[int]) -> None:
        """Append what was sampled, up to the first wrong guess; what follows it leaves the cache."""
        answer = work.answer
        # Rows without room are fed all the same: their prompt belongs in the cache.
        if not answer.live:
            return
        right = 0
        for guess, token in zip([*draft, None], sampled, strict=True):
            answer.add(token)
            if not answer.live or token != guess:
                break
            right += 1
        self.engine.lengths[row] -= len(draft) - right
        if answer.live:
            work.pending = answer.ids[-1:]

    def _draft(self, row: int, prompt: list[int], answer: Answer) -> list[int]:
        """What may follow; it leaves one token of the limit, for the one sampled after the last guess."""
        most = min(self.draft_tokens, answer.limit - len(answer.ids) - 1)
        if most <= 0:
            return []
        return self._drafts.draft(row, [*prompt[-CONTEXT:], *answer.ids[-CONTEXT:]], most)


def answers(
    decoder: Decodes,
    prompts: list[list[int]],
    sampling: Sampling,
    uniforms_BT: np.ndarray | None,
    room: list[int],
    first: Callable[[], list[tuple[int, Reply]]] | None = None,
) -> list[Reply]:
    """One answer of each of the first rows, all begun together; `first` makes the first step."""
    for row, prompt in enumerate(prompts):
        decoder.begin(row, prompt, sampling, None if uniforms_BT is None else uniforms_BT[row], room[row])
    done: dict[int, Reply] = {}
    step = first or decoder.step
    while len(done) < len(prompts):
        new, step = step(), decoder.step
        done.update(new)
        did(len(new), tokens=sum(len(prompts[row]) for row, _ in new))
    return [done[row] for row in range(len(prompts))]


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
    longest = max(map(len, prompts))
    decoder = Decoder(
        lm,
        batch,
        engine=engine,
        draft_tokens=draft_tokens,
        rows=len(prompts),
        room=max(longest, min(longest + max_new_tokens, limit)),
    )
    # Neighbours in this order share the most; an engine that pads wants neighbours of one length.
    key = prompts.__getitem__ if decoder.engine.shares else lambda i: len(prompts[i])
    order = sorted(range(len(prompts)), key=key)
    for start in range(0, len(order), batch):
        chosen = [prompts[i] for i in order[start : start + batch]]
        decoder.lengths[:] = [0] * len(decoder.lengths)
        room = [max(limit, len(prompt)) for prompt in chosen]
        shared = shared_prefixes(chosen) if decoder.engine.shares else None
        done = decoder.answer(chosen, sampling, None, room, shared)
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

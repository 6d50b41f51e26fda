"""A judge tried on a few real turns before a run relies on it: what it can be read to say, and its price."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sage.objective.intervention.base import TurnContext
from sage.teacher.judge import TeacherJudge


@dataclass(frozen=True, slots=True)
class JudgeTrial:
    """What a judge has done with some turns. Tokens are those of different queries: equal turns are asked
    once."""

    turns: int
    read: int
    """Turns whose reply gives one label; the others are FALLBACK in a run."""
    cut: int
    """Turns whose reply was ended by `max_new_tokens`."""
    tokens: int
    """Prompt and reply tokens of all queries."""
    reply_tokens: int
    """The replies' share of them."""
    seconds: float
    """Wall time of all queries together."""
    unread: tuple[str, ...]
    """The first few different replies that give no label, as they are."""

    @property
    def share(self) -> float:
        """Share of the turns whose reply gives a label; 0 without turns."""
        return self.read / self.turns if self.turns else 0.0


def try_judge(judge: TeacherJudge, turns: Sequence[TurnContext], examples: int = 3) -> JudgeTrial:
    """Ask about `turns`, with at most `examples` of the replies that cannot be read.

    Use a judge of its own without a cache file: what is in its memory costs nothing. Raises what the judge
    raises.
    """
    started = time.perf_counter()
    replies = judge(turns)
    seconds = time.perf_counter() - started
    asked = [(c, r) for c, r in zip(turns, replies, strict=True) if not r.cached]
    answered = [r.tokens - judge.prompt_tokens(c) for c, r in asked]
    limit = judge.query.max_new_tokens
    cut = {r.text for (_, r), tokens in zip(asked, answered, strict=True) if tokens >= limit}
    unread = dict.fromkeys(r.text for r in replies if r.label is None)
    return JudgeTrial(
        turns=len(replies),
        read=sum(r.label is not None for r in replies),
        cut=sum(r.text in cut for r in replies),
        tokens=sum(r.tokens for r in replies),
        reply_tokens=sum(answered),
        seconds=seconds,
        unread=tuple(unread)[:examples],
    )

"""Guesses of the next tokens from what was said before: an agent repeats itself from turn to turn.

A guess never changes what is sampled. It is run through the model in one forward together with the token
before it, each position is sampled as it would have been, and what follows the first wrong guess is thrown
away (prompt-lookup decoding, with the sampled token in place of a rejection rule: token j of an answer has
its own random number, whichever forward it comes from).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

CONTEXT = 3
"""Tokens that a guess looks back on."""
SHARE = 0.5
"""A guess is made where the likeliest next token was at least this share of what followed its context."""


class _Table:
    """What followed each context so far."""

    def __init__(self) -> None:
        self._next: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)

    def learn(self, context: tuple[int, ...], token: int) -> None:
        self._next[context][token] += 1

    def guess(self, context: tuple[int, ...]) -> tuple[bool, int | None]:
        """(whether the context is known, the token it speaks for)."""
        seen = self._next.get(context)
        if seen is None:
            return False, None
        token, count = max(seen.items(), key=lambda item: item[1])
        return True, token if count >= SHARE * seen.total() else None


class Drafts:
    """The guesses for conversations that are decoded side by side, one per row, as an engine's rows are."""

    def __init__(self, rows: int) -> None:
        self._own = [_Table() for _ in range(rows)]
        self._all = _Table()

    def release(self, row: int, last: int) -> None:
        """Follows the engine's `release`."""
        self._own[row] = self._own[last]
        self._own[last] = _Table()

    def draft(self, row: int, tail: Sequence[int], limit: int) -> list[int]:
        """At most `limit` tokens that may follow `tail`: by this conversation's habits, else by anyone's."""
        tokens = list(tail[-CONTEXT:])
        start = len(tokens)
        while len(tokens) - start < limit:
            context = tuple(tokens[-CONTEXT:])
            known, token = self._own[row].guess(context)
            if not known:
                _, token = self._all.guess(context)
            if token is None:
                break
            tokens.append(token)
        return tokens[start:]

    def learn(self, row: int, tail: Sequence[int], answer: Sequence[int]) -> None:
        """`answer` was said after `tail`."""
        tokens = [*tail[-CONTEXT:], *answer]
        for end in range(len(tokens) - len(answer), len(tokens)):
            context = tuple(tokens[max(0, end - CONTEXT) : end])
            self._own[row].learn(context, tokens[end])
            self._all.learn(context, tokens[end])

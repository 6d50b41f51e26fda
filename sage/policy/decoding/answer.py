"""One answer while it is decoded: its ids, its text as far as a stop pattern must see it, and its end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

UNFINISHED = "\ufffd"
"""What a tokenizer puts for bytes that are no whole character yet."""
LONGEST = 8
"""Tokens after which bytes that are still no character will never be one."""


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


class GrowingText:
    """The text of ids that come one at a time: a new one is decoded with the few before it, never all."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._whole = ""
        """The text of all ids before `_new`."""
        self._last: list[int] = []
        """Ids that belong to it and stand right before `_new`: some tokenizers write a token otherwise at the
        beginning of a text."""
        self._new: list[int] = []

    def add(self, token: int) -> str:
        """The text of all ids so far, this one included."""
        self._new.append(token)
        before = self._decode(self._last)
        both = self._decode([*self._last, *self._new])
        added = both[len(before) :]
        if not both.endswith(UNFINISHED) or len(self._new) > LONGEST:
            # What adds nothing (a special token) does not tell that a text has begun.
            self._last = self._new if added else [*self._last, *self._new]
            self._whole, self._new = self._whole + added, []
            return self._whole
        return self._whole + added

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""


class Answer:
    """One answer while it is decoded: `ids` so far, whether it goes on (`live`), its `limit` in tokens."""

    def __init__(
        self, tokenizer: Any, end_ids: frozenset[int], stop: re.Pattern[str] | None, limit: int
    ) -> None:
        self._tokenizer, self._end_ids, self._stop = tokenizer, end_ids, stop
        self._text = GrowingText(tokenizer)
        self.limit = limit
        self.ids: list[int] = []
        self.live = limit > 0
        self._truncated = False

    def add(self, token: int) -> None:
        """Append a sampled token; the answer ends with an end token, a match of `stop`, or at its limit."""
        self.ids.append(token)
        if token in self._end_ids or (self._stop is not None and self._stop.search(self._text.add(token))):
            self.live = False
        elif len(self.ids) >= self.limit:
            self.live, self._truncated = False, True

    def reply(self) -> Reply:
        """What has been decoded."""
        text = str(self._tokenizer.decode(self.ids, skip_special_tokens=True)) if self.ids else ""
        return Reply(self.ids, text, self._truncated)


def stop_pattern(sampling: Sampling) -> re.Pattern[str] | None:
    """What ends an answer beside the model's end tokens."""
    return re.compile(sampling.stop) if sampling.stop else None

"""Token-exact conversations: history grows by appending ids and is never rendered a second time.

Rendering a growing message list through a chat template may change earlier tokens (Qwen3's drops past
thinking), so the ids that were sampled would not be the ids that are trained on. Here the template is
asked once for its pieces (`sage.policy.models.chat_format`), and every conversation is put together from
them.

Control tokens are a template's own: one that stands in an environment's text stays text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sage.policy.models.chat_format import JOINT, Closing, chat_format, control_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.episode import Episode

_THOUGHT_ENDS = re.compile(r"</[\w:]*(?:think|reason)\w*>|\[/THINK\]", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"<[\w:]*(?:think|reason)\w*>|\[THINK\]", re.IGNORECASE)


class Dialogue:
    """Turns messages into ids for one tokenizer and its chat template.

    Raises ModelError where the template does not show the messages it is given (then nothing exact can be
    said about its tokens), and where it knows no thinking and `thinking` is asked for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, thinking: bool = False) -> None:
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.format = chat_format(tokenizer, thinking)
        self._control = control_words(tokenizer)
        self._any_control = re.compile("|".join(map(re.escape, sorted(self._control))) or r"(?!)")
        closing = self.format.last or self.format.closing
        if closing is None and tokenizer.eos_token_id is not None:
            # Nothing in the template closes an answer: the model's own end token does.
            closing = Closing((int(tokenizer.eos_token_id),), str(tokenizer.eos_token))
        self.closing = closing
        """What closes a written answer; None where neither template nor tokenizer has anything."""

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _join(self, *parts: tuple[str, bool]) -> list[int]:
        """Ids of (text, whether it is the template's own) one after another, as if they were one text, but
        for control words in what is not the template's: these are split after their first character."""
        text, cuts = "", []
        for part, own in parts:
            if not own:
                found = self._any_control.search(part)
                while found:
                    cuts.append(len(text) + found.start() + 1)
                    found = self._any_control.search(part, found.start() + 1)
            text += part
        ids: list[int] = []
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            ids += self._encode(text[start:end])
        return ids

    def _trimmed(self, text: str) -> str:
        trims = self.format.trims
        text = text.lstrip() if trims in ("left", "both") else text
        return text.rstrip() if trims in ("right", "both") else text

    def _opening(self, system: str, user: str) -> list[tuple[str, bool]]:
        pieces = self.format
        if system and pieces.system is None:
            user = self.joined(system, user)
        user = self._trimmed(user)
        if system and pieces.system is not None:
            before, between, after = pieces.system
            system = self._trimmed(system)
            return [(before, True), (system, False), (between, True), (user, False), (after, True)]
        return [(pieces.opening[0], True), (user, False), (pieces.opening[1], True)]

    def joined(self, system: str, user: str) -> str:
        """The first user turn where the template has no system role."""
        return system + JOINT + user

    def open(self, system: str, user: str) -> list[int]:
        """Ids of the opening messages up to and including the assistant's header."""
        return self._join(*self._opening(system, user))

    def opening_text(self, system: str, user: str) -> str:
        """The same as text."""
        return "".join(text for text, _ in self._opening(system, user))

    def follow_text(self, user: str) -> str:
        """What stands between an answer without its closing and the next one, as text."""
        before, after = self.format.follow
        return before + self._trimmed(user) + after

    def follow(self, user: str, ended: bool) -> list[int]:
        """Ids between an answer and the next one; `ended`: the answer holds its whole closing already."""
        return self._follow(user, None if ended else ())

    def after(self, answer_ids: Sequence[int], user: str) -> list[int]:
        """Ids between an answer and the next one: what the answer holds of its closing is not said twice."""
        return self._follow(user, answer_ids)

    def _follow(self, user: str, answer_ids: Sequence[int] | None) -> list[int]:
        closing, (before, after) = self.format.closing, self.format.follow
        user = self._trimmed(user)
        if closing is not None and closing.plain:
            has = answer_ids is None or self._says(answer_ids, closing)
            before = before.removeprefix(closing.text) if has else before
            return self._join((before, True), (user, False), (after, True))
        ids = self._join((before, True), (user, False), (after, True))
        return ids[self._held(ids, answer_ids) :]

    def _held(self, ids: list[int], answer_ids: Sequence[int] | None) -> int:
        """How many of `ids`, which follow an answer, the answer ends with already."""
        closing, last = self.format.closing, self.format.last
        whole = 0 if closing is None else len(closing.ids)
        if answer_ids is None or not answer_ids:
            return whole if answer_ids is None else 0
        end = answer_ids[-1]
        if end not in self._control.values():
            return 0
        if last is not None and end == last.ids[-1]:
            return whole
        # Part of a closing of several tokens, or a next speaker's mark that the model itself ended with.
        blanks = 0
        while blanks < len(ids) and not self.tokenizer.decode(ids[blanks : blanks + 1]).strip():
            blanks += 1
        reach = max(whole, blanks + 1)
        return next((i + 1 for i in reversed(range(min(reach, len(ids)))) if ids[i] == end), 0)

    def _says(self, ids: Sequence[int], closing: Closing) -> bool:
        return self.decode(list(ids)).endswith(closing.text)

    def encode_answer(self, text: str) -> list[int]:
        """Ids of a written answer (an expert's, a demonstration's) as they stand after the assistant's
        header, closed as this template closes answers."""
        closing = self.closing
        own = self.format.lead, True
        if closing is None:
            return self._answer(own, (text, False))
        if closing.plain:
            return self._answer(own, (text, False), (closing.text, True))
        return self._answer(own, (text, False)) + list(closing.ids)

    def _answer(self, *parts: tuple[str, bool]) -> list[int]:
        """Ids of an answer as the header before it makes them (a SentencePiece blank, for one)."""
        header = self.format.follow[1], True
        before, whole = self._join(header), self._join(header, *parts)
        return whole[len(before) :] if whole[: len(before)] == before else self._join(*parts)

    def ended(self, answer_ids: Sequence[int]) -> bool:
        """True where the answer holds its whole closing."""
        if not answer_ids:
            return False
        closings = [c for c in (self.format.closing, self.format.last, self.closing) if c is not None]
        return any(self._says(answer_ids, c) if c.plain else answer_ids[-1] == c.ids[-1] for c in closings)

    def decode(self, ids: list[int]) -> str:
        """Answer text without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def said(self, text: str) -> str:
        """What an answer says once its thinking, and a closing that is no special token, are taken off.

        A thought that never ended leaves nothing.
        """
        for closing in (self.format.closing, self.format.last):
            if closing is not None:
                text = text.removesuffix(closing.text)
        ends = list(_THOUGHT_ENDS.finditer(text))
        if ends:
            return text[ends[-1].end() :].lstrip()
        if self.format.opens_thinking:
            return ""
        begins = _THOUGHT_BEGINS.search(text)
        return text[: begins.start()] if begins else text

    def stop(self, pattern: str | None) -> str | None:
        """The regular expression that ends an answer: the style's, but not inside a thought; and a closing
        that no single token stands for."""
        found = [pattern] if pattern else []
        if pattern and self.thinking:
            # Tried from the beginning only: from every place it would take seconds a token in a long thought.
            ended = rf"\A(?s:.*(?:{_THOUGHT_ENDS.pattern}).*?)(?:{pattern})"
            silent = rf"\A(?!\s*(?:{_THOUGHT_BEGINS.pattern}))(?s:.*?)(?:{pattern})"
            found = [ended] if self.format.opens_thinking else [ended, silent]
        closing = self.format.closing
        if closing is not None and closing.plain:
            found.append(re.escape(closing.text) + r"\Z")
        return "|".join(f"(?:{one})" for one in found) if found[1:] or self.thinking else pattern or None


def render(dialogue: Dialogue, episode: Episode) -> tuple[list[int], list[tuple[int, int]]]:
    """The same conversation under another template: (ids, one (start, end) answer span per turn).

    The answers' ids are those that were sampled; only what stands around them is the template's own. Turns
    that were given have no span.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    answer: list[int] = []
    for turn in episode.all_turns:
        if not spans:
            ids += dialogue.open(episode.system, turn.message)
        else:
            ids += dialogue.after(answer, turn.message)
        answer = episode.token_ids[turn.answer_start : turn.answer_end]
        spans.append((len(ids), len(ids) + len(answer)))
        ids += answer
    return ids, spans[len(episode.given) :]

"""Token-exact conversations: history grows by appending ids and is never rendered a second time.

Rendering a growing message list through a chat template may change earlier tokens (Qwen3's drops past
thinking), so the ids that were sampled would not be the ids that are trained on. Here the template is
asked only twice: for the opening, and for the text that stands between one answer and the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.episode import Episode

_ANSWER = "\u2603ANSWER\u2603"
_USER = "\u2603USER\u2603"


class Dialogue:
    """Turns messages into ids for one tokenizer and its chat template.

    Raises ValueError where the template does not show the messages it is given (then nothing exact can be
    said about its tokens).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        between = self._render(
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": _ANSWER},
                {"role": "user", "content": _USER},
            ]
        )
        if between.count(_ANSWER) != 1 or between.count(_USER) != 1:
            raise ValueError(
                "The chat template drops or repeats messages; multi-turn ids cannot be exact with it."
            )
        after = between[between.index(_ANSWER) + len(_ANSWER) :]
        self._before_user, self._after_user = after.split(_USER)
        head = self._encode(self._before_user)
        special = set(tokenizer.all_special_ids)
        self.end_id: int | None = head[0] if head and head[0] in special else None
        """The token that closes an answer in this template, None where it is plain text."""

    def _render(self, messages: list[dict[str, str]]) -> str:
        # enable_thinking is read by Qwen3's template and ignored by others: thinking is off (section 8).
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(text)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def open(self, system: str, user: str) -> list[int]:
        """Ids of the opening messages up to and including the assistant's header."""
        messages = [{"role": "system", "content": system}] if system else []
        return self._encode(self._render([*messages, {"role": "user", "content": user}]))

    def follow(self, user: str, ended: bool) -> list[int]:
        """Ids between an answer and the next one; `ended`: the answer's last id is already `end_id`."""
        ids = self._encode(self._before_user + user + self._after_user)
        return ids[1:] if ended and self.end_id is not None else ids

    def encode_answer(self, text: str) -> list[int]:
        """Ids of a written answer (an expert's, a demonstration's), closed with this template's end token."""
        return self._encode(text) + ([] if self.end_id is None else [self.end_id])

    def ended(self, answer_ids: list[int]) -> bool:
        """True where the answer closes itself with this template's end token."""
        return bool(answer_ids) and answer_ids[-1] == self.end_id

    def decode(self, ids: list[int]) -> str:
        """Answer text without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def render(dialogue: Dialogue, episode: Episode) -> tuple[list[int], list[tuple[int, int]]]:
    """The same conversation under another template: (ids, one (start, end) answer span per turn).

    The answers' ids are those that were sampled; only what stands around them is the template's own. Turns
    that were given have no span.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    answer: list[int] = []
    for turn in episode.played:
        if not spans:
            ids += dialogue.open(episode.system, turn.message)
        else:
            ids += dialogue.follow(turn.message, dialogue.ended(answer))
        answer = episode.token_ids[turn.answer_start : turn.answer_end]
        spans.append((len(ids), len(ids) + len(answer)))
        ids += answer
    return ids, spans[len(episode.given) :]

"""What a chat template puts around messages, read off the template itself: pieces of text and closing tokens.

A template is asked with marks in place of the messages, and what stands between the marks is kept. From then
on conversations are put together from these pieces; `sage.policy.preview` compares them with the template's
own rendering of an environment's prompts before a run spends anything.

Outcomes that are decided here: a template without a system role gets the system text in front of the first
user turn; one that prints today's date prints PINNED_DATE; one that opens `<think>` by itself has it closed
again unless thinking is on; one that trims messages has them trimmed everywhere; one that drops or repeats
messages is refused.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from sage.errors import ModelError, short_reason
from sage.policy.models.time_limit import TookTooLong, time_limit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RENDER_LIMIT_S = 20.0
"""For one rendering, which takes milliseconds: a template is code of whoever made the model."""
PINNED_DATE = datetime.datetime(2026, 1, 1)
"""What a template that prints today's date prints, so that equal configs give equal numbers."""
LONG_TURNS = 50
"""Turns after which a template must still show the first message."""
JOINT = "\n\n"
"""Between the system text and the first user turn where a template has no system role."""

_SYSTEM, _USER, _ANSWER = "\u2603SYSTEM\u2603", "\u2603USER\u2603", "\u2603ANSWER\u2603"
_CLOCK = re.compile(r"""strftime_now\s*\(\s*(["'])((?:(?!\1)[^\\])*)\1\s*\)""")
_OPENS_THINKING = re.compile(r"(?:<([\w:]*(?:think|thought|reason)\w*)>|\[THINK\])\s*\Z", re.IGNORECASE)

Trim = Literal["none", "left", "right", "both"]


@dataclass(frozen=True, slots=True)
class Closing:
    """How an answer ends: `ids` in the conversation, of which the last one, when sampled, ends the answer;
    `text` is what they say. `plain` marks a closing of ordinary tokens, which is looked for as text."""

    ids: tuple[int, ...]
    text: str
    plain: bool = False


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The pieces. An opening is `system[0] + system text + system[1] + user text + system[2]`, or
    `opening[0] + user text + opening[1]`; a later user turn is `follow[0] + user text + follow[1]`, where
    `follow[0]` begins with `closing`."""

    opening: tuple[str, str]
    system: tuple[str, str, str] | None
    """None where the template has no system role."""
    follow: tuple[str, str]
    trims: Trim
    """What the template takes off a user's message."""
    lead: str
    """Blanks between the assistant's header and an answer."""
    closing: Closing | None
    """Closes an answer in the history; None where nothing in the template does."""
    last: Closing | None
    """Closes the last answer of a conversation: `closing`, but for a few templates."""
    added: str
    """What is put behind the template's own header: the end of a thought that it opens, or a channel."""
    opens_thinking: bool
    """The header leaves a thought open: an answer begins inside it."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer when they are sampled."""
        closings = (self.closing, self.last)
        return frozenset(c.ids[-1] for c in closings if c is not None and not c.plain)


_known: WeakKeyDictionary[PreTrainedTokenizerBase, dict[Any, ChatFormat]] = WeakKeyDictionary()


def chat_format(tokenizer: PreTrainedTokenizerBase, thinking: bool = False) -> ChatFormat:
    """The format of a tokenizer's template, read once. Raises ModelError, in one sentence, where the template
    cannot be used."""
    formats = _known.setdefault(tokenizer, {})
    key = (str(tokenizer.chat_template), thinking, tokenizer.bos_token, tokenizer.eos_token)
    if key not in formats:
        formats[key] = _read(tokenizer, thinking)
    return formats[key]


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    *,
    thinking: bool = False,
    generate: bool = True,
) -> str:
    """The template's own text of `messages`. Names that templates know thinking by are all given, and the
    clock stands still. Raises ValueError for a template that runs on and on."""
    try:
        with time_limit(RENDER_LIMIT_S):
            text = tokenizer.apply_chat_template(
                messages,
                chat_template=_undated(tokenizer.get_chat_template()),
                tokenize=False,
                add_generation_prompt=generate,
                enable_thinking=thinking,  # Qwen3, SmolLM3, GLM
                thinking=thinking,  # DeepSeek V3.1, Granite
            )
    except TookTooLong as error:
        raise ValueError(f"it was not done after {RENDER_LIMIT_S:g} s") from error
    return str(text)


def _undated(template: str) -> str:
    """The template with what its clock would print written out. Raises ValueError where it asks for the time
    in words that it makes up itself."""
    template = _CLOCK.sub(lambda found: repr(PINNED_DATE.strftime(found[2])), template)
    if re.search(r"strftime_now\s*\(", template):
        raise ValueError("it prints today's date in a format of its own making")
    return template


def dated(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date that the template prints in place of today's (ISO 8601); None where it prints none."""
    return PINNED_DATE.date().isoformat() if _CLOCK.search(tokenizer.get_chat_template()) else None


def control_words(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Tokens that are a template's own: special ones, and added words that the template names."""
    template = tokenizer.get_chat_template()
    return {
        str(token.content): number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or (token.content in template and re.search(r"\w", token.content))
    }


def _read(tokenizer: PreTrainedTokenizerBase, thinking: bool) -> ChatFormat:
    say = partial(render, tokenizer, thinking=thinking)
    user, answer = _message("user", _USER), _message("assistant", _ANSWER)
    alone = _rendered(tokenizer, say, [user])
    if say([user]) != alone:
        raise _refusal(tokenizer, "renders one message in two ways, so that no two runs would be alike")
    opening = _pieces(tokenizer, alone, [_USER])
    between = _rendered(tokenizer, say, [_message("user", "x"), answer, user])
    after = _pieces(tokenizer, between, [_ANSWER, _USER])[1:]
    _check_memory(tokenizer, say)
    header, lead, opens = _header(tokenizer, opening[1], say, thinking)
    added = header[len(opening[1]) :]
    closing, last = _closings(tokenizer, _tail(say, answer), after[0])
    system = _with_system(say, added)
    _check_thinking(tokenizer, thinking)
    return ChatFormat(
        opening=(opening[0], header),
        system=system,
        follow=(after[0], after[1] + added),
        trims=_trims(say, alone),
        lead=lead,
        closing=closing,
        last=last,
        added=added,
        opens_thinking=opens,
    )


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _refusal(tokenizer: PreTrainedTokenizerBase, why: str) -> ModelError:
    name = tokenizer.name_or_path or type(tokenizer).__name__
    return ModelError(
        f"The chat template of {name!r} {why}; point `chat_template` at a Jinja file that shows each message "
        "once and in order."
    )


def _rendered(tokenizer: PreTrainedTokenizerBase, say: Any, messages: list[dict[str, str]]) -> str:
    try:
        return say(messages)
    except Exception as error:  # whatever the template's own code raises
        roles = ", ".join(message["role"] for message in messages[:3])
        why = f"cannot render a conversation of {roles} ({short_reason(error)})"
        raise _refusal(tokenizer, why) from error


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str, marks: list[str]) -> tuple[str, ...]:
    """What stands before, between and after `marks`, each of which has to be there once and in order."""
    if any(text.count(mark) != 1 for mark in marks):
        raise _refusal(tokenizer, "drops or repeats messages, so that multi-turn ids cannot be exact with it")
    places = [text.index(mark) for mark in marks]
    if places != sorted(places):
        raise _refusal(tokenizer, "changes the order of messages")
    pieces, start = [], 0
    for mark, place in zip(marks, places, strict=True):
        pieces.append(text[start:place])
        start = place + len(mark)
    return (*pieces, text[start:])


def _check_memory(tokenizer: PreTrainedTokenizerBase, say: Any) -> None:
    """Refuse a template that forgets the beginning of a long conversation."""
    marks = [f"{_ANSWER if turn % 2 else _USER}{turn}." for turn in range(2 * LONG_TURNS + 1)]
    messages = [_message("assistant" if turn % 2 else "user", mark) for turn, mark in enumerate(marks)]
    _pieces(tokenizer, _rendered(tokenizer, say, messages), marks)


def _with_system(say: Any, added: str) -> tuple[str, str, str] | None:
    """The pieces around a system text; None where the template refuses, drops or misplaces it."""
    try:
        text = say([_message("system", _SYSTEM), _message("user", _USER)])
    except Exception:  # "System role not supported"; what else is wrong has been found without it
        return None
    if text.count(_SYSTEM) != 1 or text.count(_USER) != 1 or text.index(_SYSTEM) > text.index(_USER):
        return None
    before, rest = text.split(_SYSTEM)
    between, after = rest.split(_USER)
    return before, between, after + added


def _tail(say: Any, answer: dict[str, str]) -> str | None:
    """What closes the last answer of a conversation; None where the template only ends in a question."""
    try:
        text = say([_message("user", "x"), answer], generate=False)
    except Exception:
        return None
    return text.split(_ANSWER)[1] if text.count(_ANSWER) == 1 else None


def _header(
    tokenizer: PreTrainedTokenizerBase, header: str, say: Any, thinking: bool
) -> tuple[str, str, bool]:
    """(the assistant's header as it is used, blanks before an answer, whether a thought is left open)."""
    opened = _OPENS_THINKING.search(header)
    if opened and thinking and "thought" in opened[0].lower():  # SearchQA's answers are written so
        name = tokenizer.name_or_path or type(tokenizer).__name__
        raise ModelError(
            f"thinking=true cannot be used with {name!r}: its chat template opens {opened[0].strip()!r}, "
            "whose end is not told from an answer's own; leave it false."
        )
    if opened and thinking:
        return header, "", True
    if opened:
        tag = f"</{opened[1]}>" if opened[1] else "[/THINK]"
        return header + ("" if header.endswith("\n") else "\n") + f"\n{tag}\n\n", "", False
    try:
        shown = say([_message("user", _USER), _message("assistant", _ANSWER)], generate=False)
    except Exception:
        return header, "", False
    before_answer = shown.split(_ANSWER)[0]
    asked = say([_message("user", _USER)])
    lead = before_answer.removeprefix(asked) if before_answer.startswith(asked) else ""
    if not lead or thinking:
        return header, "", False
    if not lead.strip():
        return header, lead, False
    # The template would have the model write this first (a channel, an empty thought): it is written for it.
    return header + lead, "", False


def _closings(
    tokenizer: PreTrainedTokenizerBase, tail: str | None, before_user: str
) -> tuple[Closing | None, Closing | None]:
    """(what closes an answer in the history, what closes the last one)."""
    words = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or re.search(r"\w", token.content)
    }

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    head = encode(before_user)
    end = head[: _first(head, words) + 1] if tail is None else encode(tail)
    if not any(number in words for number in end):
        text = (tail or "").rstrip()
        if not text or not before_user.startswith(text):
            return None, None
        plain = Closing(tuple(encode(text)), text, plain=True)
        return plain, plain
    shared = 0
    while shared < min(len(head), len(end)) and head[shared] == end[shared]:
        shared += 1
    while shared and head[shared - 1] not in words:
        shared -= 1
    if shared:
        both = _closing(tokenizer, head[:shared])
        return both, both
    first, last = _first(head, words), _first(end, words)
    return _closing(tokenizer, head[: first + 1]), _closing(tokenizer, end[: last + 1])


def _first(ids: list[int], words: dict[int, str]) -> int:
    """Place of the first control token, -1 for none."""
    return next((i for i, number in enumerate(ids) if number in words), -1)


def _closing(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> Closing | None:
    return Closing(tuple(ids), str(tokenizer.decode(ids))) if ids else None


def _trims(say: Any, alone: str) -> Trim:
    """Which blanks around a user's message the template takes away."""
    padded = say([_message("user", f" \n{_USER} \n")])
    kinds: dict[Trim, str] = {
        "none": f" \n{_USER} \n",
        "left": f"{_USER} \n",
        "right": f" \n{_USER}",
        "both": _USER,
    }
    return next((kind for kind, mark in kinds.items() if padded == alone.replace(_USER, mark)), "none")


def _check_thinking(tokenizer: PreTrainedTokenizerBase, thinking: bool) -> None:
    """Refuse thinking that would change nothing, or whose end could not be seen."""
    if not thinking:
        return
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if "think" not in str(tokenizer.chat_template).lower():
        raise ModelError(
            f"thinking=true has no effect on {name!r}: its chat template knows no thinking; leave it false."
        )
    ids = tokenizer("</think>", add_special_tokens=False)["input_ids"]
    if "</think>" not in str(tokenizer.decode(ids, skip_special_tokens=True)):
        raise ModelError(
            f"thinking=true cannot be used with {name!r}: its `</think>` is a special token, so that no "
            "answer shows where the thought ends; leave it false."
        )

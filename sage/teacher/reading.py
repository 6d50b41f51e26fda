"""Which of the three labels a judge's reply gives, if it gives one.

The rule (method.md section 3, point 3). It is about form, and never guesses what an ordinary word means:

1. Only what follows the last `</think>` is the answer. Thinking that is not finished has none.
2. A label *counts for nothing* where it is part of a choice ("SKIP or WEAK"; all three together are the
   question repeated), asked ("STRONG?"), negated or compared away ("not STRONG", "rather than WEAK",
   "would be STRONG if"), or a key (`"SKIP": 0.1`).
3. A label is *stated* where it stands
   - alone on a line (numbers, letters of an option, markdown, quotes and punctuation aside);
   - under a heading: `Label: WEAK`, `the answer is SKIP`, `"label": "STRONG"` under any key, `<x>SKIP</x>`
     (a heading that names a label, decision, verdict … goes before one that does not);
   - at the head of the reply or of a sentence, closed by punctuation or a reason ("STRONG. The agent …",
     "SKIP — …", "weak because …"). Several labels explained like that are the options, and state nothing;
   - as a *final* statement (`\\boxed{SKIP}`, "Final answer: SKIP", "so the label is SKIP"), which replaces
     what was stated before it.
   All that is stated has to be one label; two are a contradiction.
4. Where nothing is stated, the one label that the prose sets off counts, by capitals ("I rate it WEAK"),
   quotes or markdown. Two are a contradiction.

Everything else is unreadable. So a label may be followed by the others as ordinary words ("STRONG. The agent
should not skip the drawer"), and a lower-case word in a sentence never is a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from sage.episode import Label

_I = re.IGNORECASE
_LABEL = r"(?<![a-z0-9])(?P<label>skip|weak|strong)(?![a-z0-9])"
_WORD = re.compile(_LABEL, _I)
_ONLY = re.compile(r"\W*(?P<label>skip|weak|strong)(?:\W{1,12}(?P=label))*\W*", _I)

_THOUGHT = re.compile(
    r"</(?:\w+:)?(?:think(?:ing)?|thoughts?)>|</reasoning>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>final<\|message\|>|assistantfinal",
    _I,
)
"""Ends of thinking; the last two are gpt-oss's, with its special tokens printed and without."""
_THINKS = re.compile(
    r"<(?:\w+:)?(?:think(?:ing)?|thoughts?)>|<reasoning>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|\Aanalysis(?=[A-Z])"
)

_NUMBER = r"(?:\d{1,2}|[a-c])"
_ENUMERATOR = rf"(?:(?:(?:option|choice|label) )?{_NUMBER} ?[.):\]–—-]|\({_NUMBER}\)|\d{{1,2}}(?= ?\())"
_DECOR = rf"(?:[^\w\n]{{0,12}}(?:{_ENUMERATOR}[^\w\n]{{0,12}})?)"
"""What may stand before a label. Lengths are bounded here and below, so that no reply takes long to read."""
_EITHER = r"\b(?:or|and|nor|to|vs|versus|maybe|perhaps|possibly|even|leaning|almost)\b"
_CHOICE = re.compile(rf"(?:[^\w.:=?!\n]|{_EITHER}|{_ENUMERATOR})*", _I)
"""Between the labels of a choice."""
_OPTION = re.compile(rf"(?:[^\w?!\n]|\n(?!\s*\n)|\b(?:or|and)\b|\d+(?:\.\d+)?|{_ENUMERATOR})*", _I)
"""Between the three labels of the question; they may stand on lines of their own."""
_GOES_ON = re.compile(r"(?:[ \t,/|]|\bor\b|\band\b)*", _I)

_CLAUSE = re.compile(r"[.,;:!?\n()—–]|\b(?:but|so|therefore|hence|thus)\b|\brather\b(?! than)", _I)
_DISMISSES = re.compile(
    r"\b(?:not|never|no(?! doubt)|neither|nor|cannot|hardly|barely|without|than|instead of|avoid|unlike)\b"
    r"|n['’]t\b|\b(?:(?<!answer )(?<!label )(?<!verdict )would|could|might|may) (?:have been|be)\b",
    _I,
)
_DISMISSED_AFTER = re.compile(
    r"\W{0,3}\s*(?:(?:is|was|would|does|seems|feels|sounds)\b[^.,;:!?\n]*(?:\bnot\b|n['’]t\b|\btoo\b)"
    r"|(?:isn|wasn|wouldn|doesn)['’]t\b|if\b)",
    _I,
)
_KEY = re.compile(r"\s*[\"']\s*:")
_TRUE_KEY = re.compile(r"\s*[\"']\s*:\s*true\b", _I)

_NOUN = (
    r"(?:label|answer|decision|verdict|judge?ment|classification|class|category|rating|conclusion|output"
    r"|response|reply|choice|assessment|evaluation|intervention|word)"
)
_LEAD = r"(?:so|therefore|thus|hence|overall|finally|in conclusion|in summary|to conclude)"
_SURELY = r"(?:clearly|definitely|probably|likely|most likely|therefore|thus|hence|simply)"
_IS = r"(?:\bis\b|\b(?:should|would) be\b|[:=>→–—-])"
_HEADING = re.compile(
    rf"(?:\A|[.!?;,{{>\n])\W{{0,12}}(?P<lead>{_LEAD}\b\W{{0,12}})?(?P<before>(?:\w+\s){{0,4}}?)(?P<noun>{_NOUN})\b"
    rf"(?:(?: \w+){{0,4}}?[^\w\n]{{0,12}}{_IS}(?: {_SURELY}\b)?| |\W{{0,12}}\n)"
    rf"\s{{0,2}}{_DECOR}{_LABEL}",
    _I,
)
_FINAL = re.compile(r"\b(?:final|finally|overall|conclu\w+)\b", _I)
_BOXED = re.compile(rf"\\boxed\s*\{{\s*(?:\\\w+\s*\{{\s*)*{_DECOR}{_LABEL}", _I)
_VALUE = re.compile(rf"[\"'][^\"'\n]{{0,60}}[\"']\s*:\s*[\"']{_DECOR}{_LABEL}[^\w\"'\n]*[\"']", _I)
_TAG = re.compile(rf"<\w[^<>\n]{{0,60}}>\s*{_DECOR}{_LABEL}[^\w<]*</", _I)
_LINE_HEADING = re.compile(
    rf"^[^\n:：]{{1,60}}[:：]{_DECOR}(?-i:(?P<label>SKIP|WEAK|STRONG))[^\w\n]*$", _I | re.M
)
_ALONE = re.compile(rf"^{_DECOR}{_LABEL}[^\w\n]*$", _I | re.M)
_HEAD = re.compile(rf"(?:\A|\n|(?<=[.!?;])\s){_DECOR}{_LABEL}", _I)
_PHRASE_ENDS = re.compile(
    r"[*`\"'’”)\]}]*(?:\s*(?:[.:;!(\[{}<—–\n]|\Z)|\s+[-=→]|\s+(?:because|since|as|due|given|for)\b)", _I
)
_COMMA = re.compile(r"[*`\"'’”)\]]*\s*,")
_SET_OFF = re.compile(r"[*`\"'“‘\[]")


class _Statement(NamedTuple):
    place: int
    label: Label
    final: bool = False


def parse_reply(text: str, *, thinking: bool = False) -> Label | None:
    """The label that a reply gives by the rule above, None where it gives none or several.

    thinking: the prompt itself has opened the thinking, so that a reply without its end is unfinished.
    """
    answer = re.sub(r"[^\S\n]+", " ", _after_thinking(text, thinking).replace("_", " ")).strip()
    answer = re.sub(r" ?\n(?: ?\n)+ ?", "\n\n", answer)
    only = _ONLY.fullmatch(answer)
    if only:
        return _label(only)
    answer = _without_dismissed(_without_question(answer))
    stated = _stated(answer)
    final = [s for s in stated if s.final]
    if final:
        stated = [s for s in stated if s.final or s.place > final[-1].place]
    labels = {s.label for s in stated} or set(_set_off(answer))
    return labels.pop() if len(labels) == 1 else None


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt's text ends inside thinking that it has opened itself."""
    opened = [match.end() for match in _THINKS.finditer(prompt)]
    return bool(opened) and _THOUGHT.search(prompt, opened[-1]) is None and not prompt[opened[-1] :].strip()


def ends_thinking(text: str) -> bool:
    """Whether thinking ends somewhere in a text."""
    return _THOUGHT.search(text) is not None


def _after_thinking(text: str, thinking: bool) -> str:
    ends = [match.end() for match in _THOUGHT.finditer(text)]
    if thinking and not ends:
        return ""
    rest = text[ends[-1] :] if ends else text
    again = _THINKS.search(rest)
    return rest[: again.start()] if again else rest


def _label(match: re.Match[str]) -> Label:
    return Label(match["label"].upper())


def _without_question(text: str) -> str:
    """The text without the three options where they are repeated together."""
    words = list(_WORD.finditer(text))
    pieces, start, i = [], 0, 0
    while i + 2 < len(words):
        three = words[i : i + 3]
        together = len({_label(word) for word in three}) == 3
        if not together or not all(_joined(text, a, b, _OPTION) for a, b in pairwise(three)):
            i += 1
            continue
        i += 3
        while i < len(words) and _joined(text, words[i - 1], words[i], _GOES_ON):
            i += 1
        pieces.append(text[start : three[0].start()])
        start = words[i - 1].end()
    return "\n".join([*pieces, text[start:]])


def _joined(text: str, a: re.Match[str], b: re.Match[str], by: re.Pattern[str]) -> bool:
    return b.start() - a.end() < 40 and by.fullmatch(text, a.end(), b.start()) is not None


def _without_dismissed(text: str) -> str:
    """The text with a `#` in place of every label that counts for nothing."""
    words = list(_WORD.finditer(text))
    gone = {i for i, word in enumerate(words) if _dismissed(text, word)}
    for i, (a, b) in enumerate(pairwise(words)):
        if _label(a) is not _label(b) and _joined(text, a, b, _CHOICE):
            gone |= {i, i + 1}
    pieces, start = [], 0
    for i in sorted(gone):
        pieces.append(text[start : words[i].start()])
        start = words[i].end()
    return "#".join([*pieces, text[start:]])


def _dismissed(text: str, word: re.Match[str]) -> bool:
    rest = text[word.end() : word.end() + 400]
    if _KEY.match(rest):
        return _TRUE_KEY.match(rest) is None
    if _DISMISSED_AFTER.match(rest):
        return True
    stop = re.search(r"[.!?\n]", rest)
    if stop and stop[0] == "?":
        return True
    before = text[max(0, word.start() - 200) : word.start()]
    return _DISMISSES.search(_CLAUSE.split(before)[-1]) is not None


def _stated(text: str) -> list[_Statement]:
    headings = list(_headings(text))
    if not headings:
        found = [m for form in (_VALUE, _TAG, _LINE_HEADING) for m in form.finditer(text)]
        found += [m for m in _WORD.finditer(text) if _TRUE_KEY.match(text, m.end())]
        headings = [_Statement(m.start("label"), _label(m)) for m in found]
    headings += [_Statement(m.start("label"), _label(m), True) for m in _BOXED.finditer(text)]
    alone = [_Statement(m.start("label"), _label(m)) for m in _ALONE.finditer(text)]
    places = {s.place for s in alone}
    explained = [s for s in _explained(text) if s.place not in places]
    if len({s.label for s in explained}) > 1:
        explained = []
    return headings + alone + explained


def _headings(text: str) -> Iterator[_Statement]:
    for match in _HEADING.finditer(text):
        if match["label"].isupper() or _phrase_ends(text, match, comma=True):
            final = bool(match["lead"]) or _FINAL.search(match["before"]) is not None
            final = final or match["noun"].lower() == "conclusion"
            yield _Statement(match.start("label"), _label(match), final)


def _explained(text: str) -> Iterator[_Statement]:
    for match in _HEAD.finditer(text):
        opens = not text[: match.start("label")].strip(" *`\"'“‘#>-[(")
        if _phrase_ends(text, match, comma=opens):
            yield _Statement(match.start("label"), _label(match))


def _phrase_ends(text: str, label: re.Match[str], *, comma: bool) -> bool:
    """Whether a phrase ends after a label; at a comma too where it may."""
    end = label.end("label")
    return any(form.match(text, end) for form in ((_PHRASE_ENDS, _COMMA) if comma else (_PHRASE_ENDS,)))


def _set_off(text: str) -> Iterator[Label]:
    """Labels in prose that are written as labels."""
    others = _WORD.sub("", text)
    shouted = re.search(r"[a-z]", others) is None and re.search(r"[A-Z]", others)
    for match in _WORD.finditer(text):
        quoted = _SET_OFF.match(text, match.start() - 1) if match.start() else None
        if quoted or (match["label"].isupper() and not shouted):
            yield _label(match)

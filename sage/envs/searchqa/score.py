"""Exact match and F1 of an answer, as the SQuAD evaluation script defines them (and Search-R1 after it)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Lower-case, without punctuation and articles, spaces squeezed."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golden: Sequence[str]) -> bool:
    """Whether `answer` equals one of the golden answers after normalisation."""
    return normalise(answer) in {normalise(gold) for gold in golden}


def f1(answer: str, golden: Sequence[str]) -> float:
    """The best harmonic mean, over the golden answers, of word precision and recall; 0 to 1."""
    return max((_f1(normalise(answer).split(), normalise(gold).split()) for gold in golden), default=0.0)


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))

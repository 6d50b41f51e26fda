"""Normalisation, exact match and F1 against values worked out by hand."""

from __future__ import annotations

import pytest

from sage.envs.searchqa.score import exact_match, f1, normalise


@pytest.mark.parametrize(("text", "expected"), [
    ("The  Battle of Hastings.", "battle of hastings"),
    ("a man, an apple, THE end", "man apple end"),
    ("theatre", "theatre"),  # an article is a whole word
    ("J. R. R. Tolkien's", "j r r tolkiens"),
    ("the", ""),
])
def test_normalisation(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_exact_match_takes_any_golden_answer() -> None:
    assert exact_match("the Beatles!", ["Rolling Stones", "Beatles"])
    assert not exact_match("Beatles band", ["Beatles"])
    assert not exact_match("anything", [])


@pytest.mark.parametrize(("given", "golden", "expected"), [
    ("Kavor Renim", ["Kavor Renim"], 1.0),
    ("Kavor", ["Kavor Renim"], 2 / 3),  # precision 1, recall 1/2
    ("Kavor Dilo Tumas", ["Kavor Renim"], 2 / 5),  # precision 1/3, recall 1/2
    ("Renim Renim", ["Renim"], 2 / 3),  # a word counts as often as both have it
    ("other", ["Kavor Renim"], 0.0),
    ("Renim", ["Kavor Renim", "Renim Bank of Dosk", "x"], 2 / 3),  # the best of them
    ("the", ["a"], 1.0),  # both empty after normalisation, as in SQuAD's script
    ("the", ["x"], 0.0),
    ("x", [], 0.0),
])
def test_f1(given: str, golden: list[str], expected: float) -> None:
    assert f1(given, golden) == pytest.approx(expected)

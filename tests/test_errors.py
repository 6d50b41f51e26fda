"""What an error says in a sentence of ours, also where it says nothing."""

from __future__ import annotations

import pytest

from sage.errors import named_reason, reason_of, short_reason


@pytest.mark.parametrize(
    ("error", "reason", "named"),
    [
        (ValueError("\n  too long\nand more"), "too long", "ValueError: too long"),
        (ValueError(""), "ValueError", "ValueError"),
        (RuntimeError(" \n "), "RuntimeError", "RuntimeError"),
        (AssertionError(), "AssertionError", "AssertionError"),
    ],
)
def test_an_error_without_a_message_is_called_by_its_name(error: Exception, reason: str, named: str) -> None:
    assert (reason_of(error), named_reason(error)) == (reason, named)
    assert short_reason(error) == reason


def test_a_long_reason_is_cut_and_loses_its_stop() -> None:
    assert short_reason(ValueError("It is broken.")) == "It is broken"
    assert short_reason(ValueError("word " * 50), 20) == "word word word word…"

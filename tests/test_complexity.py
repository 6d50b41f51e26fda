"""No function is longer, wider or more tangled than a reader holds; exceptions are listed with a reason."""

from __future__ import annotations

import pytest

pytest.importorskip("radon", reason="radon measures complexity (the dev and test extras bring it)")

from tests.complexity import LIMIT, Size, complaints, sizes


def test_every_function_is_within_the_limits_or_listed_with_a_reason():
    """What is past them is made smaller; a line of complexity_exceptions.toml that is not needed goes."""
    assert complaints() == []


def test_lines_parameters_and_branches_are_counted():
    """Without self, with starred ones; decorators are no lines; a function inside is measured too."""
    source = (
        "class Box:\n"
        "    @property\n"
        "    def lid(self, a, *rest, b=1, **more):\n"
        "        if a and b:\n"
        "            return 1\n"
        "        return 2\n"
        "def outer():\n"
        "    def inner(x):\n"
        "        return x\n"
        "    return inner\n"
    )
    found = dict(sizes(source))
    assert found["Box.lid"] == Size(lines=4, parameters=4, complexity=3)
    assert found["outer"].lines == 4
    assert (found["outer.inner"].lines, found["outer.inner"].parameters) == (2, 1)


def test_what_is_past_a_limit_is_named_by_its_measure():
    """Equal is allowed, one more is not."""
    assert LIMIT.beyond(LIMIT) == {}
    assert Size(61, 9, 16).beyond(LIMIT) == {"lines": 61, "parameters": 9, "complexity": 16}

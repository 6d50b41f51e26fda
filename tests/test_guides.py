"""What the guides' test leaves out or shortens (tests/guides.py): what pages say, and nothing too much."""

from __future__ import annotations

import re

import pytest

from tests.guides import NOT_HERE, SERVERS, makes_an_environment, not_here, shortened
from tests.pages import ROOT, blocks, pages

BLOCKS = [block for page in pages() for block in blocks(page)]
COMMANDS = [command for block in BLOCKS for command in block.commands]


def test_every_reason_to_leave_a_command_out_is_that_of_some_command() -> None:
    for pattern in [*NOT_HERE, *SERVERS]:
        assert any(re.search(pattern, command) for command in COMMANDS), pattern
    assert sum(makes_an_environment(command) != "" for command in COMMANDS) == 2


def test_what_needs_nothing_is_typed() -> None:
    typed = [command for command in COMMANDS if not not_here(command)]
    assert len(typed) > 40
    for begin in ("python -m sage", "python -m analysis", "pip install", "mlflow ui", "accelerate launch"):
        assert any(command.startswith(begin) for command in typed), begin


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("python -m sage", "python -m sage budget=smoke"),
        ("python -m sage budget=smoke", "python -m sage budget=smoke"),
        ("python -m sage env=drawers trainer.steps=2", "python -m sage env=drawers trainer.steps=2"),
        ("python -m sage list study=table4", "python -m sage list study=table4"),
        ("python -m sage -m study=table4", "python -m sage -m study=table4 budget=smoke seed=0"),
        ("python -m sage -m study=mine launch.until=decided",) * 2,
        ("python -m sage -m seed=0 budget=short", "python -m sage -m seed=0 budget=smoke"),
        ("python -m analysis summary runs/",) * 2,
    ],
)
def test_what_takes_hours_is_shortened_and_nothing_else(said: str, typed: str) -> None:
    assert shortened(said) == typed


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.excerpt], ids=lambda block: block.excerpt)
def test_what_a_page_shows_of_a_file_stands_in_it(block) -> None:  # type: ignore[no-untyped-def]
    shown = block.text.split("\n", 1)[1].strip()
    assert shown in (ROOT / block.excerpt).read_text(encoding="utf-8")

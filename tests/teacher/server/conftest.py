"""A tiny teacher behind a server, and what opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.config.load import load
from sage.config.server import ServerSettings
from sage.policy.models.load import LanguageModel
from sage.teacher.server.teacher import ServedTeacher, open_teacher
from tests.teacher.server.fake import FakeServer, serving
from tests.tiny_models import tiny_lm

Open = Callable[..., ServedTeacher]


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    return tiny_lm(2, hidden=48)


@pytest.fixture
def server(lm: LanguageModel) -> Iterator[FakeServer]:
    with serving(lm) as running:
        yield running


@pytest.fixture
def opened(lm: LanguageModel) -> Iterator[Open]:
    """Opens a teacher at an address, with settings that lose no time; all are closed in the end."""
    made: list[ServedTeacher] = []

    def open_at(
        address: str, k: int = 5, say: Callable[[str], None] = print, **changes: Any
    ) -> ServedTeacher:
        made.append(
            open_teacher(
                settings_at(address, **changes), lm.tokenizer, path="here", thinking=False, k=k, say=say
            )
        )
        return made[-1]

    yield open_at
    for teacher in made:
        teacher.close()


def settings_at(address: str, **changes: Any) -> ServerSettings:
    """The shipped settings, quick."""
    default = load(["teacher=server", "divergence=top_k"]).teacher.server
    assert default is not None
    quick = {"wait_s": 0.01, "deadline_s": 5.0, "patience_s": 3.0, "address": address}
    return ServerSettings.model_validate(default.model_dump() | quick | changes)

"""Two recorded runs of one seed, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.view.answers import Answers
from sage.view.library import Library
from tests.view.made import make_pair


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read, never written."""
    return make_pair(tmp_path_factory.mktemp("view") / "runs")


@pytest.fixture
def answers(runs: Path) -> Answers:
    return Answers(Library([runs]))


@pytest.fixture
def keys(answers: Answers) -> dict[str, str]:
    """By method."""
    return {run["method"]: run["key"] for run in answers.runs()["runs"]}

"""One JVM for all quick tests of this folder; a start takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("scienceworld")
pytest.importorskip("py4j")

from sage.envs.scienceworld import jvm


@pytest.fixture(scope="session")
def simulator() -> Iterator[jvm.Simulator]:
    running = jvm.Simulator()
    yield running
    running.close()

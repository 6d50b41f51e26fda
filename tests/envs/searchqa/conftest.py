"""A real retrieval server in a process of its own, and settings that find it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("retrieval_server.py")


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """`serve(corpus, *options)` starts a server: (its address, its process). All are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(corpus: Path, *options: str) -> tuple[str, subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(corpus), *options], stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[3],
        )
        started.append(process)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        return f"http://127.0.0.1:{port}/retrieve", process

    yield start
    for process in started:
        process.kill()
        process.wait()

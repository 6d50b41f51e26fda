"""The viewer's command as a process of its own, for a browser to look at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """The address that the command prints."""
    command = [sys.executable, "-m", "sage", "view", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
    finally:
        process.kill()
        process.wait()

"""Pages that are generated are current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_of_methods_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_methods.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_preset_states_its_source() -> None:
    for path in (ROOT / "conf" / "method").glob("*.yaml"):
        assert "\n# Source: " in path.read_text(encoding="utf-8"), path.name

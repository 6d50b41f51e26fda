"""Settings classes load without torch, in milliseconds."""

from __future__ import annotations

import subprocess
import sys


def test_rules_import_without_torch() -> None:
    rooms = "confidence.base divergence.base intervention.base normalization weights"
    rules = ", ".join(["sage.training.curriculum", *(f"sage.objective.{room}" for room in rooms.split())])
    code = f"import sys, {rules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=".")

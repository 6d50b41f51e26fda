"""Settings classes load without torch, in milliseconds."""

from __future__ import annotations

import subprocess
import sys


def test_rules_import_without_torch() -> None:
    rules = "confidence, curriculum, divergence, intervention, normalization, weights"
    code = f"import sys; from sage.objective import {rules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=".")

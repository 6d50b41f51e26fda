"""The front door: `python -m analysis <command> …`. Imports nothing heavy before the command is known."""

from __future__ import annotations

import sys

from analysis.cli import main
from sage.redaction import guard_streams

if __name__ == "__main__":
    guard_streams()
    sys.exit(main())

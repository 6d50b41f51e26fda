"""What an export finds in a run's folder beside the records: its config, and what was sent before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sage.records.files import Unreadable, read_object


def note_name(label: str) -> str:
    """The file that says what a logger was sent of a run."""
    return f"logger_{label}.json"


def is_complete(note: Path) -> bool:
    """Whether the export of a finished run whose note this is came to its end; a killed one is made up for
    later."""
    try:
        return bool((read_object(note) or {}).get("complete"))
    except Unreadable:
        return False


def is_sent(run_dir: Path, label: str) -> bool:
    """`is_complete` of a logger's note."""
    return is_complete(run_dir / note_name(label))


def read_config(run_dir: Path) -> dict[str, Any]:
    """The run's own config, secrets blanked; empty where there is none. Raises Unreadable."""
    import yaml

    path = run_dir / "config.yaml"
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file():  # a device would be read without end
            raise Unreadable(f"{path} is no file")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Unreadable(f"{path} cannot be read as a config") from error
    return config if isinstance(config, dict) else {}


def tracking_of(run_dir: Path) -> dict[str, Any]:
    """The run's own tracking settings, as plain data; empty where it has none. Raises Unreadable."""
    tracking = read_config(run_dir).get("tracking")
    return tracking if isinstance(tracking, dict) else {}

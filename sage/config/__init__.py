"""Settings: what they are, where their defaults come from, what they are called."""

from typing import Any


def __getattr__(name: str) -> Any:
    from sage.old_names import attribute

    return attribute("sage.config", name)

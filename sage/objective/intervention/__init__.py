"""Which turns are supervised, and how much."""

from typing import Any


def __getattr__(name: str) -> Any:
    from sage.old_names import attribute

    return attribute("sage.objective.intervention", name)

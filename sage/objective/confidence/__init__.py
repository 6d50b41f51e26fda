"""How far a turn's teacher is trusted."""

from typing import Any


def __getattr__(name: str) -> Any:
    from sage.old_names import attribute

    return attribute("sage.objective.confidence", name)

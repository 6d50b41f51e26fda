"""How two distributions are compared at a token."""

from typing import Any


def __getattr__(name: str) -> Any:
    from sage.old_names import attribute

    return attribute("sage.objective.divergence", name)

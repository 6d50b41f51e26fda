"""A config as plain data: one canonical text, and one flat level of dotted names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def canonical_json(data: Any) -> str:
    """JSON that is equal for equal data: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys; lists stay values, an empty mapping too."""
    if not isinstance(data, Mapping) or (prefix and not data):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat

"""What stores that take whole rows and typed settings are sent: Weights & Biases and Trackio."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sage.records.loggers.base import Point

_STALE = ("sage.state", "sage.reason")
"""Tags of the moment at which a run is begun; its end says them anew."""


class Row(NamedTuple):
    """The curves' values at one step."""

    step: int
    timestamp_ms: int
    """The newest of its points'."""
    values: dict[str, Any]


def rows(points: Sequence[Point]) -> Iterator[Row]:
    """The points, which come step by step, a row a step."""
    for step, group in groupby(points, key=lambda point: point.step):
        of_step = list(group)
        newest = max(point.timestamp_ms for point in of_step)
        yield Row(step, newest, {point.key: point.value for point in of_step})


def settings(params: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, Any]:
    """Params and tags in one mapping. Params are numbers and booleans where their texts say so, for a page
    that sorts and plots by them."""
    kept = {name: value for name, value in tags.items() if name not in _STALE}
    return kept | {name: _typed(text) for name, text in params.items()}


def _typed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return value if isinstance(value, bool | int | float) and is_finite else text

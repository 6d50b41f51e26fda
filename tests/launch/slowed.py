"""A plugin that makes a real run slow, so that what it says of itself can be seen: its games, its judge and
its teacher wait until somebody has seen it twice, its heart beats fast, and a minute of silence is half a
second. A fixed wait would do on an idle machine, and miss where a heartbeat waits for a disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sage.envs.alfworld.env import AlfworldEnvironment
from sage.policy.models.load import LanguageModel
from sage.records import pulse, rundir
from sage.teacher import judge
from sage.training import batch, gradient

rundir.HEARTBEAT_S = 0.05
pulse.SILENCE_S = 0.5
PATIENCE_S = 30.0
"""For somebody who may have gone."""

_SEEN = Path("seen")
"""In the run's working folder: its watcher appends a byte with every status.json that it reads."""


def _times_seen() -> int:
    return _SEEN.stat().st_size if _SEEN.exists() else 0


def _wait_until_seen(least_s: float) -> None:
    began, before = time.monotonic(), _times_seen()
    time.sleep(least_s)
    # Of two statuses the second is from after this call. Preflight plays before there is any.
    while before > 0 and _times_seen() < before + 2 and time.monotonic() - began < PATIENCE_S:
        time.sleep(0.01)


def _slow(home: Any, name: str, seconds: float, when: Callable[..., bool] = lambda *_: True) -> None:
    original = getattr(home, name)

    def slowed(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            _wait_until_seen(seconds)
        return original(*arguments, **named)

    setattr(home, name, slowed)


def _is_model(*arguments: Any) -> bool:
    return isinstance(arguments[0], LanguageModel)


_slow(AlfworldEnvironment, "step", 0.02)
_slow(judge, "reply", 0.4)
_slow(batch, "score", 0.4, _is_model)
_slow(gradient, "_student_pass", 0.3)

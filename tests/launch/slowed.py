"""A plugin that makes a real run slow, so that what it says of itself can be seen: its games, its judge and
its teacher wait, its heart beats fast, and a minute of silence is half a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sage.envs.alfworld.env import AlfworldEnvironment
from sage.policy.models.load import LanguageModel
from sage.records import pulse, rundir
from sage.teacher import judge
from sage.training import batch, gradient

rundir.HEARTBEAT_S = 0.05
pulse.SILENCE_S = 0.5


def _slow(home: Any, name: str, seconds: float, when: Callable[..., bool] = lambda *_: True) -> None:
    original = getattr(home, name)

    def slowed(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            time.sleep(seconds)
        return original(*arguments, **named)

    setattr(home, name, slowed)


def _is_model(*arguments: Any) -> bool:
    return isinstance(arguments[0], LanguageModel)


_slow(AlfworldEnvironment, "step", 0.02)
_slow(judge, "reply", 0.4)
_slow(batch, "score", 0.4, _is_model)
_slow(gradient, "_student_pass", 0.3)

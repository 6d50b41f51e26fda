"""Signals that ask a run to end become an exception that falls between no two things that belong together.

SIGTERM and SIGINT raise `Stopped` in the main thread, so that every `with` block unwinds; what `before_stop`
was given is called first. Inside `unbroken()` they wait for the end of the block.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal asked this run to end. `exit_code` is 128 + its number, which schedulers read as stopped."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


_blocks = 0
_begun = False
_waiting: list[int] = []
_save: Callable[[], None] | None = None


def before_stop(save: Callable[[], None] | None) -> None:
    """What a stop calls before it unwinds anything: the last whole state's checkpoint; None for nothing."""
    global _save
    _save = save


def is_stopping() -> bool:
    """Whether a signal has come."""
    return _begun


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise `Stopped` in the main thread while the block runs; a second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        global _begun
        _begun = True
        signal.signal(number, signal.SIG_DFL)
        if _blocks:
            _waiting.append(number)
        else:
            _stop(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        _waiting.clear()
        before_stop(None)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unbroken() -> Iterator[None]:
    """A signal that comes inside the block raises `Stopped` at its end; blocks may nest."""
    global _blocks
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
    if _waiting and not _blocks:
        _stop(_waiting.pop(0))


def _stop(number: int) -> None:
    if _save is not None:
        _save()
    raise Stopped(number)

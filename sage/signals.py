"""Signals that ask a run to end become an exception that falls between no two things that belong together.

SIGTERM, SIGINT and SIGHUP (a terminal that closes) raise `Stopped` in the main thread, so that every `with`
block unwinds; what `on_stop` was given is called first. Inside `defer_signals()` they wait for the end of the
block. A second SIGTERM or SIGINT kills; the SIGHUP and SIGTERM that a logout sends together count as one.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


STOPPED = "stopped by "
"""How the reason of a run begins that was asked to end."""


class Stopped(KeyboardInterrupt):
    """A signal asked this run to end. `exit_code` is 128 + its number, which schedulers read as stopped."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{STOPPED}{signal.Signals(number).name}")
        self.exit_code = 128 + number


SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""What asks a run to end; Windows has no SIGHUP."""

_blocks = 0
_begun = False
_waiting: list[int] = []
_save: Callable[[], None] | None = None
_instead: BaseException | None = None
_listening = False


def on_stop(save: Callable[[], None] | None) -> None:
    """What a stop calls before it unwinds anything: the last whole state's checkpoint; None for nothing."""
    global _save
    _save = save


def is_stopping() -> bool:
    """Whether a signal has come."""
    return _begun


def heeded() -> list[int]:
    """The signals of `SIGNALS` that this process was not told to ignore (nohup ignores SIGHUP)."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def end_at_once() -> None:
    """Until anything has begun that has to be undone, a signal ends this process with its exit code."""
    for number in heeded():
        signal.signal(number, lambda number, frame: os._exit(128 + number))


def stop_with(error: BaseException) -> None:
    """From another thread: raise `error` in the main thread as a signal would raise `Stopped`, without what
    `on_stop` was given. Nothing happens where nobody listens to signals; the next write then raises."""
    global _instead
    if _listening:
        _instead = error
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """The signals raise `Stopped` in the main thread while the block runs; a second one kills."""
    global _listening, _instead
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        global _begun
        # The handlers stay: Python drops a signal that has come and whose handler is taken away meanwhile,
        # and the exception that is on its way with it.
        if stopping:
            hangup = getattr(signal, "SIGHUP", None)
            if number == hangup or stopping == [hangup]:
                stopping.append(number)
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        stopping.append(number)
        _begun = True
        if _blocks:
            _waiting.append(number)
        else:
            _stop(number)

    stopping: list[int] = []
    before = {number: signal.getsignal(number) for number in heeded()}
    for number in before:
        signal.signal(number, stop)
    _listening = True
    try:
        with _main_is_woken():
            yield
    finally:
        _listening, _instead = False, None
        _waiting.clear()
        on_stop(None)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _main_is_woken() -> Iterator[None]:
    """While the block runs, a signal interrupts what the main thread waits for, whoever has taken it.

    Handlers run in the main thread. Of a process that was suspended when the signal came, any thread may take
    it once it goes on, and the main one would sleep until its own call ends. Python tells of every signal
    through a pipe; who reads it sends the main thread one that does nothing else.
    """
    nudge = getattr(signal, "SIGURG", None)
    if nudge is None or not hasattr(signal, "pthread_kill"):
        yield
        return
    main = threading.main_thread().ident
    assert main is not None
    told, tells = os.pipe()
    os.set_blocking(tells, False)

    def wake() -> None:
        while numbers := os.read(told, 64):
            if any(number != nudge for number in numbers):
                signal.pthread_kill(main, nudge)

    before = signal.signal(nudge, lambda number, frame: None)
    before_fd = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    thread = threading.Thread(target=wake, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_fd)
        os.close(tells)
        thread.join()
        os.close(told)
        signal.signal(nudge, before)


@contextmanager
def defer_signals() -> Iterator[None]:
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
    if _instead is not None:
        raise _instead
    if _save is not None:
        _save()
    raise Stopped(number)


def told(state: str, reason: str) -> str:
    """What people are told of a run whose records say `state`: one that somebody has stopped did not fail."""
    return "stopped" if state == "failed" and reason.startswith(STOPPED) else state

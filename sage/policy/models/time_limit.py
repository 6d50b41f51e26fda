"""A limit on code that comes from outside and runs in this process, such as a chat template's loops."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TookTooLong(Exception):
    """The block was still running at the limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong inside the block once it has run for so long; works in any thread.

    The interpreter looks for the exception between two of its own steps, so that one call into C (a
    multiplication of strings, say) is not interrupted.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    over = threading.Event()

    def watch() -> None:
        if not over.wait(seconds):
            raise_in(thread, ctypes.py_object(TookTooLong))

    watcher = threading.Thread(target=watch, name="time limit", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        raise_in(thread, None)  # one that came too late is taken back

"""Something that is done from a thread, again and again, while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(
    do: Callable[[], object], every_s: float, name: str, *, wait_s: float | None = None
) -> Iterator[None]:
    """Call `do` every `every_s` seconds, for the first time after as long, until it returns False or the
    block ends; what is being done then is waited for, `wait_s` seconds at most (None: until it is done)."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            if do() is False:
                return

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(wait_s)

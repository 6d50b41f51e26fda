"""One piece of work at a time that is done in a thread while the training goes on: a checkpoint's write.

    with Background() as writer:
        writer.start(partial(save, ...))   # waits for the piece before it
        writer.check()                     # raises what the piece has raised

An error of the work is raised in the main thread: at the next `check`, `start` or `wait`, or else at the end
of the block, which waits. A block that ends by another error keeps that one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sage.signals import Stopped


class Background:
    """See the module. At most one thread lives at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin `work` once the piece before it is done; raises that one's error instead."""
        self.wait()
        # No daemon: should the interpreter end, it waits.
        self._thread = threading.Thread(target=self._run, args=(work,), name="sage-checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a piece that has failed; waits for nothing."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being done; raises the error of what was."""
        self._join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._join()
        if error is None or isinstance(error, Stopped):
            self.wait()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error

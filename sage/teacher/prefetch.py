"""Work that is done in a thread of its own while the caller goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Prefetch(Generic[T]):
    """One thread that does one piece of work after the other, with one thread of torch's."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._started: list[Future[T]] = []

    def start(self, work: Callable[[], T]) -> None:
        """Queue a piece of work; nothing here waits."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sage-ahead", torch.set_num_threads, (1,))
        # With the context of this thread, so that what it does is seen (`sage.records.activity`).
        self._started.append(self._thread.submit(copy_context().run, work))

    def results(self) -> list[T]:
        """Wait for all that was started since the last call; an error of the work is raised here."""
        started, self._started = self._started, []
        return [future.result() for future in started]

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

"""What to do when a model fails in play: say why, give its memory back, know when to stop trying.

A batch that fails is tried again with half as many rows, and an answer that fails alone is lost. A failure is
never a score: the episode that it belongs to ends `policy_error`, and too many of those end the run
(`sage.training.not_ok`).
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sage.errors import ConfigError, ModelError, OutOfMemory, TeacherLost, is_out_of_memory, reason_of

HOPELESS = 4
"""So many answers in a row that fail alone, before any has succeeded: the model does not run at all."""
OURS = (ConfigError, ModelError, TeacherLost)
"""Errors that are sentences to the user, and no failure of a model in play."""


class Patience:
    """Counts the answers that failed alone, until one succeeds: after that, the model is known to run."""

    def __init__(self) -> None:
        self._answered, self._failed = False, 0

    def answered(self) -> None:
        self._answered = True

    def failed_alone(self, error: Exception, *, last: bool = False) -> None:
        """Raises `error` where no answer has succeeded and HOPELESS have failed, or this was the `last`."""
        self._failed += 1
        if not self._answered and (last or self._failed >= HOPELESS):
            raise error


def failure_of(error: BaseException) -> str:
    """An error of a model in one line; its type too where the message needs it."""
    reason = reason_of(error)
    named = isinstance(error, RuntimeError) or reason == type(error).__name__
    return f"The model failed: {reason if named else f'{type(error).__name__}: {reason}'}"


def without_frames(error: Exception) -> Exception:
    """The error without its frames, which hold the batch's tensors; its note says where it came from."""
    if not getattr(error, "__notes__", None):
        error.add_note("It was raised here:\n" + "".join(traceback.format_tb(error.__traceback__)))
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def free_memory() -> None:
    """Give back what the failed batch held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def memory_for(what: str, way: str) -> Iterator[None]:
    """Raise OutOfMemory, which says `what` did not fit and the `way` out, where the memory does not suffice.

    Nothing is tried again: a pass over fewer rows is a setting, and half a gradient is none.
    """
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        failed = without_frames(error)
    if failed is not None:
        free_memory()
        raise OutOfMemory(what, failed, way) from failed


def smaller_passes(micro_batch: int) -> str:
    """What makes a scoring or training pass of that many episodes smaller."""
    if micro_batch > 1:
        return (
            f"lower speed.micro_batch (now {micro_batch}), which changes no result: the same line goes on "
            "from the newest checkpoint"
        )
    return "lower rollout.max_context (speed.micro_batch is 1 already), or load the models in bfloat16"

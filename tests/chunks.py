"""Chunks of the vocabulary projection of a size of the test's own, so that small batches have several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sage.objective import chunked


@contextmanager
def chunks_of(tokens: int | None) -> Iterator[None]:
    """Inside the block a chunk has `tokens` tokens; None: what `chunk_size` says."""
    with pytest.MonkeyPatch.context() as patch:
        if tokens is not None:
            patch.setattr(chunked, "chunk_size", lambda vocabulary, count, most=0: tokens)
        yield

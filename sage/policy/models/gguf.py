"""One reading of a GGUF file per load: transformers reads its whole header for the tokenizer, the config
and the weights each, which at 150,000 tokens takes three times some ten seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, `gguf.GGUFReader` of one file is made once. Where transformers gets it otherwise, nothing
    changes."""
    try:
        import gguf
    except ImportError:  # the load says so
        yield
        return
    plain, made = gguf.GGUFReader, {}

    def reader(path: Any, *arguments: Any) -> Any:
        key = (str(path), arguments)
        if key not in made:
            made[key] = plain(path, *arguments)
        return made[key]

    module: Any = gguf
    module.GGUFReader = reader
    try:
        yield
    finally:
        module.GGUFReader = plain

"""What a retriever is to the environment, and how one is chosen by name.

A settings class registered in `retrievers` builds it; `env.retrievers` in the YAML holds one entry per name,
and `env.retriever` says which is used. One process opens each retriever once, whatever the number of
environments in it: an index may be large.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Protocol

from sage.config.registry import Component, Registry
from sage.envs.searchqa.retrieval.passage import Passage

retrievers = Registry("env.retrievers")


class Retriever(Protocol):
    def search(self, query: str, count: int) -> list[Passage]:
        """At most `count` passages, best first; equal queries give equal answers.

        Raises EnvironmentFault where the index or the server cannot be asked.
        """
        ...


class RetrieverSettings(Component):
    """Base of every retriever's settings: hashable, and importable in milliseconds."""

    def needs_corpus(self) -> bool:
        """Whether the passages must lie on this machine."""
        return True

    def longest_s(self) -> float:
        """Seconds that one search may take by its own limits; 0 where it waits for nobody."""
        return 0.0

    def open(self, corpus: Path | None) -> Retriever:
        """Build or load it. Raises EnvironmentFault in one sentence where that cannot be done."""
        raise NotImplementedError


@functools.lru_cache(maxsize=4)
def shared_retriever(settings: RetrieverSettings, corpus: Path | None) -> Retriever:
    """The one retriever of this process with these settings over this corpus file."""
    return settings.open(corpus)

"""BM25 over an index in memory, by the `bm25s` package (Lù 2024, arXiv 2407.03618)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from sage.envs.base import EnvironmentFault
from sage.envs.searchqa.retrieval.base import RetrieverSettings, retrievers
from sage.envs.searchqa.retrieval.passage import Passage, read_corpus

if TYPE_CHECKING:
    from bm25s import BM25


@retrievers.register("bm25")
class Bm25Settings(RetrieverSettings):
    """Embedded lexical retrieval."""

    k1: float = Field(ge=0)
    """How soon more mentions of a word stop counting."""
    b: float = Field(ge=0, le=1)
    """How much long passages are held back."""

    def open(self, corpus: Path | None) -> Bm25:
        if corpus is None:
            raise EnvironmentFault("The bm25 retriever needs a corpus file; name one in env.corpus.")
        try:
            return Bm25(read_corpus(corpus), self.k1, self.b)
        except (OSError, ValueError) as error:
            raise EnvironmentFault(f"The corpus {corpus} cannot be read: {error}") from error


class Bm25:
    """Lucene's variant. A passage that shares no word with the query is never returned."""

    def __init__(self, passages: Sequence[Passage], k1: float, b: float) -> None:
        import bm25s

        self._passages = passages
        self._index: BM25 = bm25s.BM25(method="lucene", k1=k1, b=b, backend="numpy")
        tokens = bm25s.tokenize([f"{p.title}\n{p.text}" for p in passages], show_progress=False)
        self._index.index(tokens, show_progress=False)

    def search(self, query: str, count: int) -> list[Passage]:
        import bm25s

        words = bm25s.tokenize([query], return_ids=False, show_progress=False)[0]
        ids = self._index.get_tokens_ids(words)
        if not ids:
            return []
        scores_N = self._index.get_scores_from_ids(ids)
        return [self._passages[i] for i in best(scores_N, count) if scores_N[i] > 0]


def best(scores_N: np.ndarray, count: int) -> list[int]:
    """Indices of the `count` highest scores, highest first, equal ones in the order of the corpus."""
    if count < len(scores_N):
        bar = np.partition(scores_N, -count)[-count]
        candidates = np.flatnonzero(scores_N >= bar)
    else:
        candidates = np.arange(len(scores_N))
    order = np.argsort(-scores_N[candidates], kind="stable")
    return [int(i) for i in candidates[order][:count]]

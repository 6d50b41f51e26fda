"""Dense retrieval as in the paper: E5 embeddings and a flat FAISS index of inner products."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from sage.envs.base import EnvironmentFault
from sage.envs.searchqa.retrieval.base import RetrieverSettings, retrievers
from sage.envs.searchqa.retrieval.passage import Passage, read_corpus
from sage.locks import locked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@retrievers.register("dense")
class DenseSettings(RetrieverSettings):
    """Embeddings by a transformers model, searched exactly; extra `dense`."""

    model: str
    """A hub name or a local directory."""
    index: str | None
    """A FAISS file over the corpus in its order (Search-R1's `e5_Flat.index`); None embeds the corpus here
    and keeps the index in the cache."""
    query_prefix: str
    """What the model was trained to read before a query; this one is E5's."""
    passage_prefix: str
    """The same before a passage."""
    max_tokens: int = Field(ge=8)
    """Longer texts are cut."""
    batch: int = Field(ge=1)
    """Passages embedded side by side."""

    def open(self, corpus: Path | None) -> Dense:
        if corpus is None:
            raise EnvironmentFault("The dense retriever needs a corpus file; name one in env.corpus.")
        try:
            return Dense(self, corpus)
        except ImportError as error:
            raise EnvironmentFault(
                f"env.retriever=dense needs a package that is not installed ({error}); "
                "`pip install 'sage-opd[dense]'` has it."
            ) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise EnvironmentFault(f"The dense retriever cannot be opened: {error}") from error


class Dense:
    """Passages by the inner product of unit vectors, that is by cosine."""

    def __init__(self, settings: DenseSettings, corpus: Path) -> None:
        import faiss
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # the terminal belongs to the run's own display
        self._settings = settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(settings.model)
        self._model: PreTrainedModel = AutoModel.from_pretrained(settings.model).to(self._device).eval()
        self._passages = read_corpus(corpus)
        if settings.index is not None:
            self._index: Any = faiss.read_index(str(Path(settings.index).expanduser()))
        else:
            self._index = self._cached_index(corpus)
        if self._index.ntotal != len(self._passages):
            raise ValueError(
                f"the index holds {self._index.ntotal} vectors and the corpus {len(self._passages)} "
                "passages; they must be of the same corpus."
            )

    def search(self, query: str, count: int) -> list[Passage]:
        vector_1D = self.embed([self._settings.query_prefix + query])
        _, ids_1K = self._index.search(vector_1D, min(count, len(self._passages)))
        return [self._passages[i] for i in ids_1K[0] if i >= 0]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (len(texts), D): the mean of the last layer over each text's tokens, E5's pooling."""
        import torch

        parts: list[np.ndarray] = []
        step = self._settings.batch
        for start in range(0, len(texts), step):
            tokens = self._tokenizer(
                list(texts[start : start + step]),
                max_length=self._settings.max_tokens,
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                hidden_BTD = self._model(**tokens).last_hidden_state
                mask_BT1 = tokens["attention_mask"][..., None].to(hidden_BTD.dtype)
                mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
                parts.append(torch.nn.functional.normalize(mean_BD, dim=-1).float().cpu().numpy())
        return np.concatenate(parts)

    def _cached_index(self, corpus: Path) -> Any:
        """Embed the corpus once per model and content; minutes per 100,000 passages on a CPU."""
        import faiss

        from sage.digests import weights_digest
        from sage.envs.manifest import cache_root, made_folder
        from sage.envs.searchqa.store import file_digest

        how = self._settings
        key = f"{file_digest(corpus)} {weights_digest(self._model)} {how.passage_prefix} {how.max_tokens}"
        name = f"dense-{hashlib.sha256(key.encode()).hexdigest()[:24]}.faiss"
        file = made_folder(cache_root() / "indices") / name
        with locked(Path(f"{file}.lock")):
            if not file.exists():
                texts = [f"{how.passage_prefix}{p.title} {p.text}" for p in self._passages]
                vectors_ND = self.embed(texts)
                index = faiss.IndexFlatIP(vectors_ND.shape[1])
                index.add(vectors_ND)
                building = file.with_suffix(".part")
                faiss.write_index(index, str(building))
                building.rename(file)
        return faiss.read_index(str(file))

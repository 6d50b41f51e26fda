"""`env: searchqa` of the config: which questions, which passages, which retriever."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

import sage.envs.searchqa.retrieval.bm25
import sage.envs.searchqa.retrieval.dense
import sage.envs.searchqa.retrieval.http  # noqa: F401 - these imports register the retrievers
from sage.config.registry import environments
from sage.envs.searchqa.retrieval.base import RetrieverSettings, retrievers, shared_retriever
from sage.envs.searchqa.sources import GeneratedSettings, OfficialSettings
from sage.envs.settings import EnvSettings

if TYPE_CHECKING:
    from sage.envs.base import Environment
    from sage.episode import Task

AnyRetriever = Annotated[SerializeAsAny[RetrieverSettings], BeforeValidator(retrievers.build)]


@environments.register("searchqa")
class SearchqaSettings(EnvSettings):
    """Questions answered by searching: Search-R1's task."""

    questions: Literal["generated", "official"]
    """`generated` is the fictional encyclopedia, `official` the seven sets of the paper."""
    data: str | None
    """Folder with a local copy of the official sets, `<set>/<split>.jsonl`; None asks the hub."""
    corpus: str | None
    """JSON lines of the passages that official questions are answered from; None where a server has them."""
    max_searches: int = Field(ge=0, le=1_000)
    """Searches an episode may make; 0 makes a baseline that cannot search."""
    topk: int = Field(ge=1, le=1_000)
    """Passages a search returns at most."""
    splits: dict[str, list[str]]
    """What `evaluation_splits` is by default, per source of questions."""
    retriever: str
    """Which entry of `retrievers` is used."""
    retrievers: dict[str, AnyRetriever]
    generated: GeneratedSettings
    official: OfficialSettings
    distances: bool
    """Record the missing gold passages around every turn."""

    @model_validator(mode="after")
    def _known_retriever(self) -> SearchqaSettings:
        if self.retriever not in self.retrievers:
            raise ValueError(
                f"env.retriever={self.retriever!r} is not one of {', '.join(sorted(self.retrievers))}."
            )
        return self

    def prepare(self) -> None:
        from sage.envs.manifest import MissingData

        self._folder()
        corpus = self._corpus()
        if self._chosen().needs_corpus() and (corpus is None or not corpus.is_file()):
            what = "is not set" if corpus is None else f"names {corpus}, which is no file"
            raise MissingData(
                f"The {self.retriever} retriever searches a corpus on this machine, and env.corpus {what}; "
                "give JSON lines with title and text in `contents`, or ask a server with env.retriever=http."
            )

    def tasks(self, split: str) -> list[Task]:
        from sage.envs.searchqa.store import load_tasks

        return load_tasks(self._folder(), split)

    def manifest_digest(self, splits: Sequence[str]) -> str:
        """Of the questions, and of the passages where they lie on this machine."""
        import hashlib

        from sage.envs.manifest import manifest_digest
        from sage.envs.searchqa.store import file_digest

        tasks = manifest_digest([task for split in splits for task in self.tasks(split)])
        corpus = self._corpus() if self._chosen().needs_corpus() else None
        if corpus is None:
            return tasks
        return hashlib.sha256(f"{tasks} {file_digest(corpus)}".encode()).hexdigest()

    def make(self) -> Environment:
        from sage.envs.searchqa.env import SearchqaEnvironment

        opened = functools.partial(shared_retriever, self._chosen(), self._corpus())
        return SearchqaEnvironment(opened, self.topk, self.max_searches)

    def longest_step_s(self) -> float:
        return self._chosen().longest_s()

    def expert_sample(self, tasks: Sequence[Task]) -> list[Task]:
        from sage.envs.manifest import spread

        return spread(tasks, 50) if self._chosen().needs_corpus() else list(tasks[:1])

    def gives_distances(self) -> bool:
        return self.distances

    def _chosen(self) -> RetrieverSettings:
        return self.retrievers[self.retriever]

    def _corpus(self) -> Path | None:
        """The passages' file; generated questions have their own."""
        if self.questions == "generated":
            return self._folder() / "corpus.jsonl"
        return None if self.corpus is None else Path(self.corpus).expanduser()

    def _folder(self) -> Path:
        """Where the questions lie, made now if they do not. Raises MissingData."""
        if self.questions == "generated":
            from sage.envs.searchqa.store import ensure_generated

            how = self.generated
            return ensure_generated(how.seed, how.train, how.evaluation, how.passages)
        from sage.envs.searchqa.official import ensure_official

        return ensure_official(self.official, None if self.data is None else Path(self.data).expanduser())

"""Client of the retrieval server that Search-R1 users run.

`POST <url> {"queries": [...], "topk": k, "return_scores": true}` answers
`{"result": [[{"document": {"id": ..., "contents": "title\\ntext"}, "score": ...}, ...], ...]}`; without
scores the documents stand alone. Both shapes are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from sage.envs.base import EnvironmentFault
from sage.envs.searchqa.retrieval.base import RetrieverSettings, retrievers
from sage.envs.searchqa.retrieval.passage import Passage


@retrievers.register("http")
class HttpSettings(RetrieverSettings):
    """A Search-R1 retrieval server."""

    url: str
    """Its whole address, path included."""
    timeout_s: float = Field(gt=0)
    """For one attempt, to connect and between two reads."""
    retries: int = Field(ge=0)
    """Further attempts after a failed one: no connection, a timeout, or status 429, 500, 502, 503 or 504."""
    wait_s: float = Field(ge=0)
    """Before the second retry, doubled for each further one; the first comes at once."""
    down_s: float = Field(ge=0)
    """A server that failed every attempt is left alone for so long: searches fail at once meanwhile."""

    def needs_corpus(self) -> bool:
        return False

    def open(self, corpus: Path | None) -> HttpRetriever:
        return HttpRetriever(self)


class HttpRetriever:
    """Asks one query at a time; without state but the connection and whether the server was down."""

    def __init__(self, settings: HttpSettings, clock: Callable[[], float] = time.monotonic) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        self.settings = settings
        self._clock = clock
        self._down_until = 0.0
        self._reason = ""
        retry = Retry(
            total=settings.retries,
            backoff_factor=settings.wait_s / 2,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the machine's has no part in this
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def search(self, query: str, count: int) -> list[Passage]:
        import requests

        if self._clock() < self._down_until:
            raise EnvironmentFault(self._reason)
        how = self.settings
        body = {"queries": [query], "topk": count, "return_scores": True}
        try:
            answer = self._session.post(how.url, json=body, timeout=how.timeout_s)
            answer.raise_for_status()
            return _passages(answer.json())[:count]
        except (requests.RequestException, ValueError, KeyError, TypeError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
            self._reason = (
                f"The retrieval server {how.url} gave no passages in {how.retries + 1} attempts ({reason})."
            )
            self._down_until = self._clock() + how.down_s
            raise EnvironmentFault(self._reason) from error


def _passages(answer: Any) -> list[Passage]:
    found = []
    for entry in answer["result"][0]:
        document = entry.get("document", entry)
        found.append(Passage.of(document["contents"]))
    return found

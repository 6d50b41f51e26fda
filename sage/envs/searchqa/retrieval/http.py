"""Client of the retrieval server that Search-R1 users run.

`POST <url> {"queries": [...], "topk": k, "return_scores": true}` answers
`{"result": [[{"document": {"id": ..., "contents": "title\\ntext"}, "score": ...}, ...], ...]}`; without
scores the documents stand alone. Both shapes are read, and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from sage.config.server_address import server_address
from sage.envs.base import EnvironmentFault
from sage.envs.searchqa.retrieval.base import RetrieverSettings, retrievers
from sage.envs.searchqa.retrieval.passage import Passage
from sage.fetch import Client, FetchError, Limits


@retrievers.register("http")
class HttpSettings(RetrieverSettings):
    """A Search-R1 retrieval server."""

    url: str
    """Its whole address, path included."""
    deadline_s: float = Field(gt=0, allow_inf_nan=False)
    """For one query in all: every attempt, every wait and the whole reply. At most the time of a step."""
    timeout_s: float = Field(gt=0, allow_inf_nan=False)
    """For one attempt, to connect and between two reads."""
    retries: int = Field(ge=0)
    """Further attempts after a failed one: no connection, a timeout, or status 429, 500, 502, 503 or 504."""
    wait_s: float = Field(ge=0, allow_inf_nan=False)
    """Before the second retry, doubled for each further one; the first comes at once, unless the server asks
    for a pause (Retry-After), which is kept where the deadline leaves it."""
    down_s: float = Field(ge=0, allow_inf_nan=False)
    """A server that failed every attempt is left alone for so long: searches fail at once meanwhile."""
    max_bytes: int = Field(ge=1)
    """A longer reply is refused."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if server_address(url) is None:
            raise ValueError(
                "env.retrievers.http.url is no address of a server; it looks like http://host:8000/retrieve."
            )
        return url

    def needs_corpus(self) -> bool:
        return False

    def longest_s(self) -> float:
        return self.deadline_s

    def open(self, corpus: Path | None) -> HttpRetriever:
        return HttpRetriever(self)


class HttpRetriever:
    """Asks one query at a time; without state but the connection and whether the server was down."""

    def __init__(self, settings: HttpSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._down_until = 0.0
        self._reason = ""
        how = settings
        limits = Limits(how.deadline_s, how.timeout_s, how.retries, how.wait_s, how.max_bytes)
        self._client = Client(how.url, limits)

    def search(self, query: str, count: int) -> list[Passage]:
        if self._clock() < self._down_until:
            raise EnvironmentFault(self._reason)
        body = {"queries": [query], "topk": count, "return_scores": True}
        try:
            return _passages(self._client.post_json(body))[:count]
        except FetchError as error:
            address = urlsplit(self.settings.url)
            where = f"{address.scheme}://{address.hostname}{address.path}"
            self._reason = f"The retrieval server {where} gave no passages: {error}."
            self._down_until = self._clock() + self.settings.down_s
            raise EnvironmentFault(self._reason) from error


def _passages(answer: Any) -> list[Passage]:
    """Raises FetchError that names the first thing of another shape."""
    results = _entry(answer, "result", "the reply")
    if not isinstance(results, list) or len(results) != 1:
        raise FetchError(f"'result' is {_kind(results)} where a list of one list was due")
    if not isinstance(results[0], list):
        raise FetchError(f"result[0] is {_kind(results[0])} where a list of documents was due")
    found = []
    for number, entry in enumerate(results[0]):
        where = f"result[0][{number}]"
        if isinstance(entry, dict) and "document" in entry:
            entry, where = entry["document"], f"{where}.document"
        contents = _entry(entry, "contents", where)
        if not isinstance(contents, str):
            raise FetchError(f"{where}.contents is {_kind(contents)} where text was due")
        found.append(Passage.of(_encodable(contents)))
    return found


def _entry(mapping: Any, key: str, where: str) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        raise FetchError(f"{where} has no {key!r} (it is {_kind(mapping)})")
    return mapping[key]


def _kind(value: Any) -> str:
    """What a JSON value is, in a word or two."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {dict: "a mapping", str: "text", type(None): "null", bool: "a truth value"}.get(
        type(value), "a number"
    )


def _encodable(text: str) -> str:
    """Halves of a UTF-16 pair, which JSON may hold alone, become U+FFFD: no file takes them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

"""Questions to one server, many at once: attempts, patience, and how much may be asked in all.

Invariant: `ask` returns a whole JSON answer, or raises TeacherLost after at most `patience_s` and one
attempt, whatever the server does. What a server breaks off, refuses for now (429, 5xx) or does not answer is
asked again, later and later and not all at the same moment; what it refuses for good is not. A server that
was gone and is back may be another one: the next answer is used only after `verify` has said that it is not.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sage.errors import TeacherLost
from sage.fetch import Client, FetchError, Limits
from sage.redaction import redact

R = TypeVar("R")
SMALL, LARGE = 1 << 24, 1 << 30
"""Most bytes of an answer about the server, and of one about many tokens."""
LONGEST_WAIT_S = 10.0
"""Between two attempts, however often the server has failed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """deadline_s: for one attempt, its whole answer included. patience_s: for all attempts at one question.
    wait_s: before the second attempt, doubled for each further one up to `LONGEST_WAIT_S`, each drawn between
    half of it and all. retries: attempts after answers that are broken off or no JSON, of a server that is
    there."""

    deadline_s: float
    patience_s: float
    wait_s: float
    retries: int


class Asker:
    """A pool of connections to `address`. Safe for several threads."""

    def __init__(
        self,
        address: str,
        patience: Patience,
        *,
        concurrency: int = 1,
        key: str | None = None,
        token_budget: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.address = address.rstrip("/").removesuffix("/v1")
        self.patience, self.token_budget, self.say = patience, token_budget, say
        self.tokens = 0
        """Of all questions, each counted once: prompt tokens, and the most that may come back."""
        self.seconds_lost = 0.0
        """Time in which an answer was waited for in vain, over all questions."""
        self.verify: Callable[[], None] | None = None
        """Asks the server whether it is still the same; raises TeacherLost where it is not."""
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._pool = ThreadPoolExecutor(concurrency, "sage-teacher")
        self._here = threading.local()
        self._clients: list[Client] = []
        self._lock = threading.RLock()
        self._unsure = False
        self._told = False
        self._given_up = threading.Event()

    @property
    def shown(self) -> str:
        """The address without what might be secret."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    def close(self) -> None:
        """Break off what is under way and end the threads."""
        self._given_up.set()
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.cut()
        self._pool.shutdown(cancel_futures=True)

    def all(self, work: Callable[[Any], R], questions: Iterable[Any]) -> list[R]:
        """`work` of every question, at most `concurrency` of them at the same time; order is kept."""
        # With the context of this thread, so that what they do is seen (`sage.records.activity`).
        futures = [self._pool.submit(copy_context().run, work, question) for question in questions]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def ask(
        self,
        path: str,
        body: Any | None = None,
        *,
        tokens: int = 0,
        max_bytes: int = 1 << 24,
        sure: bool = False,
    ) -> Any:
        """The answer to `body` at `path` (a GET without one), from this thread.

        tokens: what the question costs at most. sure: the question is one of `verify`'s own. Raises
        TeacherLost, and Refused where the server will never answer this question.
        """
        ends = time.monotonic() + self.patience.patience_s
        wait, broken = self.patience.wait_s, 0
        self._spend(tokens)
        while True:
            started = time.monotonic()
            try:
                answer = self._once(path, body, max_bytes)
            except FetchError as error:
                with self._lock:
                    self.seconds_lost += time.monotonic() - started
                if not error.again:
                    raise Refused(str(error), error.status, _message(error.detail)) from error
                alive = "no JSON" in str(error)
                broken += alive
                if alive and broken > self.patience.retries:
                    raise self._lost(f"gives {error} in {broken} attempts") from error
                self._trouble(error)
                pause = max(min(wait, LONGEST_WAIT_S) * random.uniform(0.5, 1.0), error.after_s)
                wait *= 2
                if time.monotonic() + pause > ends:
                    raise self._lost(f"does not answer ({error})") from error
                if self._given_up.wait(pause):
                    raise self._lost(f"does not answer ({error})") from error
                with self._lock:
                    self.seconds_lost += pause
                continue
            if not sure:
                self._well_again()
            return answer

    def _once(self, path: str, body: Any | None, max_bytes: int) -> Any:
        clients: dict[tuple[str, int], Client] | None = getattr(self._here, "clients", None)
        if clients is None:
            clients = self._here.clients = {}
        client = clients.get((path, max_bytes))
        if client is None:
            how = self.patience
            limits = Limits(how.deadline_s, how.deadline_s, 0, 0.0, max_bytes)
            client = clients[path, max_bytes] = Client(self.address + path, limits, self._headers)
            with self._lock:
                self._clients.append(client)
        return client.get_json() if body is None else client.post_json(body)

    def _spend(self, tokens: int) -> None:
        with self._lock:
            budget = self.token_budget
            if budget is not None and self.tokens + tokens > budget:
                raise TeacherLost(
                    f"{self.tokens:,} tokens have gone to the teacher's server and the next question may take"
                    f" {tokens:,}: teacher.server.token_budget={budget:,} is spent; raise it, and the same"
                    " line goes on from the newest checkpoint."
                )
            self.tokens += tokens

    def _trouble(self, error: FetchError) -> None:
        """Note that the server failed; say so once for each time that it is away."""
        with self._lock:
            # One that says 429 or 503 is still there; one that breaks off may come back as another.
            self._unsure = self._unsure or error.status is None
            told, self._told = self._told, True
        if not told:
            self.say(
                f"the teacher's server {self.shown} does not answer ({error}); it is asked again for up to "
                f"{self.patience.patience_s:g} s"
            )

    def _well_again(self) -> None:
        with self._lock:
            if self._unsure and self.verify is not None:
                self.verify()
                self._unsure = False
            told, self._told = self._told, False
        if told:
            self.say("the teacher's server answers again")

    def _lost(self, what: str) -> TeacherLost:
        self._given_up.set()
        return TeacherLost(
            f"The teacher's server {self.shown} {what}, and teacher.server.patience_s="
            f"{self.patience.patience_s:g} is over; start it again, and the same line goes on from the newest"
            " checkpoint."
        )


class Refused(RuntimeError):
    """The server will not answer this question. `status`, and what it says itself, without secrets."""

    def __init__(self, reason: str, status: int | None, message: str) -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.status, self.message = status, message


def _message(detail: str) -> str:
    """What an error's body says, shortened: OpenAI's shape, FastAPI's, or as it is."""
    import json

    try:
        data = json.loads(detail)
    except ValueError:
        data = detail
    for key in ("error", "message", "detail"):
        if isinstance(data, Mapping) and key in data:
            data = data[key]
            if isinstance(data, Mapping) and "message" in data:
                data = data["message"]
            break
    text = " ".join(str(data).split())
    return redact(text[:160])

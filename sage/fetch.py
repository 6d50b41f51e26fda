"""One JSON answer from a server that may be slow, broken or hostile.

Invariant: `post_json` returns or raises within `deadline_s` seconds and reads at most `max_bytes`, whatever
the server does: it drips bytes, sends headers without end, redirects, asks for an hour's patience, compresses
a gigabyte into a kilobyte. A library's timeouts are between two reads and do not bound the whole, so the
exchange has a thread of its own, whose connection is cut at the deadline.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

RETRIED = (429, 500, 502, 503, 504)
"""Statuses that another attempt may mend."""
_CHUNK = 65536
_DETAIL = 2000
"""Bytes of an error's body that are kept."""


class FetchError(RuntimeError):
    """No usable answer; the message is half a sentence, without address or secret.

    again: whether another attempt may mend it. after_s: how long the server asks to be left alone. status:
    the answer's, where there was one. detail: the beginning of an answer that is an error, as the server
    wrote it.
    """

    def __init__(
        self,
        reason: str,
        *,
        again: bool = False,
        after_s: float = 0.0,
        status: int | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(reason)
        self.again, self.after_s, self.status, self.detail = again, after_s, status, detail


class _Again(Exception):
    """This attempt failed, and another may not. `after_s`: how long the server asks to be left alone."""

    def __init__(self, reason: str, after_s: float = 0.0, status: int | None = None) -> None:
        super().__init__(reason)
        self.after_s, self.status = after_s, status


@dataclass(frozen=True, slots=True)
class Limits:
    """deadline_s: for everything. timeout_s: to connect and between two reads of one attempt. wait_s: before
    the second retry, doubled for each further one; the first comes at once."""

    deadline_s: float
    timeout_s: float
    retries: int
    wait_s: float
    max_bytes: int


class Client:
    """A kept connection to one address. One exchange at a time; one that was cut off is replaced.

    `headers` go with every request.
    """

    def __init__(self, url: str, limits: Limits, headers: Mapping[str, str] | None = None) -> None:
        self.url, self.limits, self.headers = url, limits, dict(headers or {})
        self._exchange: _Exchange | None = None
        self._under_way: _Exchange | None = None

    def get_json(self) -> Any:
        """What the server answers to a GET. Raises FetchError."""
        return self._ask(None)

    def post_json(self, body: Any) -> Any:
        """What the server answers to `body`. Raises FetchError."""
        return self._ask(body)

    def cut(self) -> None:
        """From another thread: end what is under way, which then raises FetchError, and the connection."""
        for exchange in (self._exchange, self._under_way):
            if exchange is not None:
                exchange.cut()

    def _ask(self, body: Any | None) -> Any:
        exchange = self._exchange or _Exchange(self.url, self.limits, self.headers)
        self._exchange, self._under_way = None, exchange
        answer: list[Any] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                answer.append(exchange.ask(body))
            except BaseException as error:  # raised again below, in the thread that asked
                errors.append(error)

        # A daemon: a look-up of a name cannot be cut off, and must not keep the run from ending.
        thread = threading.Thread(target=run, name="retrieval", daemon=True)
        thread.start()
        thread.join(self.limits.deadline_s)
        if answer:
            self._exchange = exchange
            return answer[0]
        if errors:
            raise errors[0]
        exchange.cut()
        raise FetchError(f"no whole answer within {self.limits.deadline_s:g} s", again=True)


class _Exchange:
    """The connection of one `Client`, and the attempts of one question over it."""

    def __init__(self, url: str, limits: Limits, headers: Mapping[str, str]) -> None:
        import requests

        self._url, self._limits = url, limits
        self._stopped = threading.Event()
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the machine's has no part in this
        # What is compressed could be a bomb, so nothing is asked for compressed and such a reply is refused.
        self._session.headers.update({**headers, "Accept-Encoding": "identity"})
        self._sockets: list[socket.socket] = []
        _note_sockets(self._session, self._sockets)

    def cut(self) -> None:
        """End the exchange from another thread: what waits for the server fails at once."""
        self._stopped.set()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._session.close()

    def ask(self, body: Any | None) -> Any:
        """The answer to `body`, or to a GET where there is none."""
        ends = time.monotonic() + self._limits.deadline_s
        pause = 0.0
        for attempt in range(self._limits.retries + 1):
            try:
                return self._once(body, ends)
            except _Again as again:
                reason, failed = str(again), again
                pause = max(again.after_s, self._limits.wait_s * 2 ** (attempt - 1) if attempt else 0.0)
            # Patience that the deadline does not leave is not begun.
            if time.monotonic() + pause >= ends or self._stopped.wait(pause):
                raise _given_up(
                    failed, f"{reason} in {attempt + 1} attempts within {self._limits.deadline_s:g} s"
                )
        raise _given_up(failed, f"{reason} in {self._limits.retries + 1} attempts")

    def _once(self, body: Any | None, ends: float) -> Any:
        import requests

        patience = max(0.001, min(self._limits.timeout_s, ends - time.monotonic()))
        try:
            with self._session.request(
                "GET" if body is None else "POST",
                self._url,
                json=body,
                timeout=patience,
                stream=True,
                allow_redirects=False,
            ) as reply:
                self._check(reply)
                content = self._read(reply)
        except (requests.RequestException, OSError, ValueError) as error:
            # ValueError: a header that cannot be read. urllib3's own errors while a body is read are OSErrors
            # or HTTPErrors, which requests only wraps in its own iterators.
            raise _Again(_reason(error)) from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise FetchError(f"a reply that is no JSON ({type(error).__name__})", again=True) from error

    def _check(self, reply: requests.Response) -> None:
        if reply.status_code in RETRIED:
            raise _Again(f"status {reply.status_code}", _retry_after(reply), reply.status_code)
        if 300 <= reply.status_code < 400:
            raise FetchError(f"a redirection (status {reply.status_code}), which is not followed")
        if reply.status_code != 200:
            raise FetchError(f"status {reply.status_code}", status=reply.status_code, detail=_begin(reply))
        coding = reply.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise FetchError(f"a compressed reply ({coding[:20]}) that was not asked for")

    def _read(self, reply: requests.Response) -> bytes:
        from urllib3.exceptions import HTTPError

        limit = self._limits.max_bytes
        content = bytearray()
        try:
            while chunk := reply.raw.read(_CHUNK, decode_content=False):
                content += chunk
                if len(content) > limit:
                    raise FetchError(f"a reply of more than {limit:,} bytes")
        except HTTPError as error:
            raise _Again(_reason(error)) from error
        return bytes(content)


def _begin(reply: requests.Response) -> str:
    """How a body begins, as far as it can be read."""
    from urllib3.exceptions import HTTPError

    try:
        return bytes(reply.raw.read(_DETAIL, decode_content=False)).decode("utf-8", "replace")
    except (HTTPError, OSError):
        return ""


def _given_up(failed: _Again, reason: str) -> FetchError:
    return FetchError(reason, again=True, after_s=failed.after_s, status=failed.status)


def _note_sockets(session: requests.Session, sockets: list[socket.socket]) -> None:
    """Have every connection of `session` leave its socket in `sockets`, where `cut` finds it."""
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
            pool = super().get_connection_with_tls_context(*args, **named)
            if not hasattr(pool.ConnectionCls, "noted"):

                class Noted(pool.ConnectionCls):  # type: ignore[name-defined]
                    noted = True

                    def connect(self) -> None:
                        super().connect()
                        sockets[:] = [self.sock]

                pool.ConnectionCls = Noted
            return pool

    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(max_retries=0))


def _retry_after(reply: requests.Response) -> float:
    """Seconds that the server asks for; 0 where it names none (a date is not waited for)."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _reason(error: BaseException) -> str:
    """The innermost cause, by its kind alone: messages of libraries hold addresses with their keys."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        seen.append(following)
        inner = [a for a in following.args if isinstance(a, BaseException)]
        inner += [r] if isinstance(r := getattr(following, "reason", None), BaseException) else []
        following = inner[0] if inner else following.__cause__ or following.__context__
    innermost = seen[-1]
    if isinstance(innermost, OSError) and innermost.strerror:
        return innermost.strerror[:80]
    return type(innermost).__name__

"""The page over HTTP, for this machine alone.

Invariant: nothing of a record leaves without the token, whoever asks: it is in the address that the terminal
shows, compared in constant time, and sent as a header, which no foreign page can. A request under another
name than this machine's own is refused, so that a foreign name that resolves here (DNS rebinding) reads
nothing.
Only GET is answered, and nothing is written.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlsplit

import pyarrow as pa
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from sage.errors import reason_of
from sage.records.tables import DamagedRecords
from sage.view.answers import PAGE, Answers
from sage.view.filters import FILTERS
from sage.view.page import FILES, server_page

TOKEN = "x-sage-token"
OWN_NAMES = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LARGEST = 2**53
"""Whole numbers beyond it are handed on as text: a page counts in doubles."""
Whole = Annotated[int, Query(ge=0, le=2**62)]
Word = Annotated[str | None, Query(max_length=4_000)]


def application(answers: Answers, token: str) -> FastAPI:
    """The server's answers, guarded."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="sage view")
    app.add_middleware(Guard, token=token)

    @app.get("/")
    def page() -> Response:
        return Response(server_page(), media_type="text/html; charset=utf-8")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in FILES:
            return refusal(404, "There is no such file.")
        content = resources.files("sage.view").joinpath("static", name).read_bytes()
        return Response(content, media_type=FILES[name])

    _records(app, answers)

    @app.exception_handler(KeyError)
    def unknown(request: Request, error: KeyError) -> Response:
        return refusal(404, f"That is not among these runs (any more): {str(error.args[0])[:200]}")

    @app.exception_handler(DamagedRecords)
    @app.exception_handler(FileNotFoundError)
    @app.exception_handler(pa.ArrowException)
    @app.exception_handler(OSError)
    def damaged(request: Request, error: Exception) -> Response:
        return refusal(409, reason_of(error))

    return app


def _records(app: FastAPI, answers: Answers) -> None:
    @app.get("/api/runs")
    def runs(since: Word = None) -> Response:
        found = answers.runs()
        if since and since == found["version"] and not found["waiting"]:
            return answer({"version": since, "same": True})
        return answer(found)

    @app.get("/api/run")
    def run(key: str) -> Response:
        return answer(answers.run(key))

    @app.get("/api/episodes")
    def episodes(
        key: str,
        request: Request,
        offset: Whole = 0,
        limit: Annotated[int, Query(ge=1, le=5_000)] = PAGE,
    ) -> Response:
        return answer(answers.episodes(key, where_of(request.query_params), offset, limit))

    @app.get("/api/turns")
    def turns(
        key: str,
        filters: Word = None,
        offset: Whole = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = PAGE,
    ) -> Response:
        names = [name for name in (filters or "").split(",") if name]
        if unknown := [name for name in names if name not in FILTERS]:
            return refusal(404, f"There is no filter {unknown[0][:80]!r}.")
        return answer(answers.turns(key, names, offset, limit))

    @app.get("/api/episode")
    def episode(
        key: str,
        phase: str,
        step: Whole,
        split: str,
        task: str,
        rollout: Whole,
    ) -> Response:
        place = {"phase": phase, "step": step, "split": split, "task": task, "rollout": rollout}
        return answer(answers.episode(key, place))


def where_of(query: Mapping[str, str]) -> dict[str, Any]:
    """The conditions on episodes that a query names."""
    where: dict[str, Any] = {name: query[name] for name in ("phase", "split", "task") if name in query}
    counts = {name: query.get(name, "") for name in ("step", "rollout")}
    where |= {n: int(t) for n, t in counts.items() if t.isascii() and t.isdigit() and len(t) < 19}
    if query.get("won") in ("true", "false"):
        where["won"] = query["won"] == "true"
    return where


def answer(data: Any) -> Response:
    """Plain data as JSON that any page can read."""
    return Response(as_json(data), media_type="application/json")


def as_json(data: Any) -> bytes:
    """JSON of plain data; what is no finite number is null, and a number no double can hold is text."""
    return json.dumps(readable(data), allow_nan=False).encode()


def readable(data: Any) -> Any:
    """The same, of numbers that JavaScript has."""
    if isinstance(data, Mapping):
        return {str(key): readable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [readable(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, int) and not isinstance(data, bool) and abs(data) > LARGEST:
        return str(data)
    return data


def refusal(status: int, sentence: str) -> Response:
    """A sentence that the page shows."""
    return Response(as_json({"error": sentence}), status_code=status, media_type="application/json")


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """ASGI middleware: who may ask, and what every answer says to the browser."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *ours]
            await send(message)

        refused = self.refused(scope)
        await (refused or self.app)(scope, receive, with_headers)

    def refused(self, scope: Scope) -> Response | None:
        """Why it is not answered; None where it is."""
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        if not is_own_name(headers.get("host", b"").decode("latin-1")):
            return refusal(403, "This page answers under the name of this machine alone (127.0.0.1).")
        if scope["method"] not in ("GET", "HEAD"):
            return refusal(405, "This page is only read.")
        given = headers.get(TOKEN, b"")
        if scope["path"].startswith("/api") and not secrets.compare_digest(given, self.token.encode()):
            return refusal(401, "Open the address that the terminal shows; it holds the token.")
        return None


def is_own_name(host: str) -> bool:
    """Whether a Host header names this machine, at whatever port (it may be forwarded)."""
    try:
        return urlsplit(f"//{host}").hostname in OWN_NAMES
    except ValueError:
        return False

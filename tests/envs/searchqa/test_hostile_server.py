"""A retrieval server that is slow, broken or hostile: passages or one sentence, and always in time.

Each reply is sent by a real server over a real socket. What a reply must come to is in the table beside it.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.config.load import load
from sage.envs.base import EnvironmentFault
from sage.envs.pool import EnvFault, EnvPool, PoolStep
from sage.envs.searchqa.env import SearchqaEnvironment
from sage.envs.searchqa.question import Question
from sage.envs.searchqa.retrieval.http import HttpRetriever, HttpSettings
from sage.envs.searchqa.retrieval.passage import Passage
from sage.episode import Task
from sage.errors import ConfigError

DEADLINE_S = 1.0
MAX_BYTES = 10_000
GOOD = {"result": [[{"document": {"id": "1", "contents": '"Sorem"\nA town.'}, "score": 1.0}]]}
FOUND = [Passage("Sorem", "A town.")]

Script = Callable[[socket.socket], None]


def http(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def says(body: Any, status: str = "200 OK", *headers: str) -> Script:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda connection: connection.sendall(http(data, status, *headers))


def raw(data: bytes) -> Script:
    return lambda connection: connection.sendall(data)


def drips(start: bytes, drop: bytes) -> Script:
    """Sends `drop` for ever, often enough that no read ever times out."""

    def run(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(400):
            connection.sendall(drop)
            time.sleep(0.05)

    return run


def floods(start: bytes, block: bytes) -> Script:
    def run(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(10_000):
            connection.sendall(block)

    return run


def waits(connection: socket.socket) -> None:
    time.sleep(20)


BOMB = gzip.compress(b"[" * 10_000_000)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TEXT = "gave no passages"

REPLIES: dict[str, tuple[Script, list[Passage] | str]] = {
    # What is right, in all its forms.
    "with scores": (says(GOOD), FOUND),
    "without scores": (says({"result": [[{"contents": "Sorem\nA town."}]]}), FOUND),
    "none found": (says({"result": [[]]}), []),
    "more than asked for": (says({"result": [GOOD["result"][0] * 50]}), FOUND * 3),
    "in chunks": (
        raw(CHUNKED + b"%x\r\n" % len(json.dumps(GOOD)) + json.dumps(GOOD).encode() + b"\r\n0\r\n\r\n"),
        FOUND,
    ),
    "no content": (says({"result": [[{"contents": ""}]]}), [Passage("", "")]),
    # Text that cannot be encoded.
    "a lone high surrogate": (
        says(b'{"result": [[{"contents": "S\\ud83d\\nA town."}]]}'),
        [Passage("S\ufffd", "A town.")],
    ),
    "a lone low surrogate": (
        says(b'{"result": [[{"contents": "S\\nA \\udc00."}]]}'),
        [Passage("S", "A \ufffd.")],
    ),
    "a whole pair": (
        says(b'{"result": [[{"contents": "S\\nA \\ud83d\\ude00."}]]}'),
        [Passage("S", "A \U0001f600.")],
    ),
    # Odd shapes.
    "no JSON": (says(b"<html>"), "no JSON"),
    "nothing": (says(b""), "no JSON"),
    "JSON cut": (says(b'{"result": [['), "no JSON"),
    "not UTF-8": (says(b'{"result": "\xff\xfe"}'), "no JSON"),
    "deeply nested": (says(b"[" * 9_000), "no JSON"),
    "null": (says(None), "the reply has no 'result'"),
    "a list": (says([GOOD]), "it is a list of 1"),
    "another key": (says({"results": [[]]}), "the reply has no 'result'"),
    "result null": (says({"result": None}), "'result' is null"),
    "result empty": (says({"result": []}), "'result' is a list of 0"),
    "result flat": (says({"result": [{"contents": "x"}]}), r"result\[0\] is a mapping"),
    "two results": (says({"result": [[], []]}), "'result' is a list of 2"),
    "documents text": (says({"result": [["x"]]}), r"result\[0\]\[0\] has no 'contents' \(it is text\)"),
    "document null": (
        says({"result": [[{"document": None}]]}),
        r"result\[0\]\[0\].document has no 'contents'",
    ),
    "contents a number": (says({"result": [[{"contents": 7}]]}), "contents is a number where text was due"),
    "contents a list": (says({"result": [[{"contents": ["x"]}]]}), "contents is a list of 1"),
    "an error in JSON": (says({"detail": "CUDA out of memory"}), "the reply has no 'result'"),
    # Statuses.
    "404": (says(b"", "404 Not Found"), "status 404"),
    "500 for ever": (says(b"", "500 Oops"), "status 500 in 3 attempts"),
    "302": (says(b"", "302 Found", "Location: http://127.0.0.1:1/x"), "a redirection"),
    "307 to itself": (says(b"", "307 Temporary", "Location: /retrieve"), "a redirection"),
    "an hour's patience": (says(b"", "429 Wait", "Retry-After: 3600"), "status 429 in 1 attempts"),
    "negative patience": (says(b"", "503 Wait", "Retry-After: -5"), "status 503 in 3 attempts"),
    "patience that is no number": (says(b"", "503 Wait", "Retry-After: soon"), "status 503 in 3 attempts"),
    "204": (says(b"", "204 No Content"), "status 204"),
    # Size.
    "too long": (says({"result": [[{"contents": "x" * MAX_BYTES}]]}), "more than 10,000 bytes"),
    "a gzip bomb": (
        says(BOMB[: MAX_BYTES - 1], "200 OK", "Content-Encoding: gzip"),
        r"compressed reply \(gzip\)",
    ),
    "endless chunks": (floods(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"), "more than 10,000 bytes"),
    "a body without end": (floods(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096), "more than 10,000 bytes"),
    # Time.
    "silence": (waits, "within 1 s"),
    "a dripping body": (drips(http(b"", length=5000), b" "), "no whole answer within 1 s"),
    "dripping headers": (drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), TEXT),
    "a dripping status": (drips(b"H", b"T"), TEXT),
    # Breaks.
    "closed at once": (lambda connection: connection.close(), "in 3 attempts"),
    "shorter than announced": (raw(http(b"{}", length=500)), "in 3 attempts"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "in 3 attempts"),
    "a bad chunk size": (raw(CHUNKED + b"zz\r\n"), "in 3 attempts"),
    "a header beyond all measure": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"), TEXT),
}


@pytest.fixture
def hostile() -> Iterator[Callable[[Script], str]]:
    """Starts a server that reads a request and then does what it is told; its address."""
    servers = []

    def start(script: Script) -> str:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                request = b""
                while b'"return_scores"' not in request:
                    data = self.request.recv(65536)
                    if not data:
                        return
                    request += data
                with contextlib.suppress(OSError):  # the client has cut it off
                    script(self.request)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://user:canary@127.0.0.1:{server.server_address[1]}/retrieve?key=canary"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def settings(url: str, **changed: Any) -> HttpSettings:
    values = {"deadline_s": DEADLINE_S, "timeout_s": 20, "retries": 2, "wait_s": 0.01, "down_s": 0}
    return HttpSettings.model_validate(
        {"name": "http", "url": url, "max_bytes": MAX_BYTES, **values, **changed}
    )


@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_is_passages_or_one_sentence_in_time(name: str, hostile) -> None:
    script, expected = REPLIES[name]
    retriever = HttpRetriever(settings(hostile(script)))
    started = time.monotonic()
    if isinstance(expected, str):
        with pytest.raises(EnvironmentFault, match=expected) as refused:
            retriever.search("town", 3)
        text = str(refused.value)
        assert TEXT in text
        assert len(text) < 300
        assert "canary" not in text
    else:
        assert retriever.search("town", 3) == expected
    # A busy machine may be late to notice; a client without a deadline would be 20 s late or more.
    assert time.monotonic() - started < DEADLINE_S + 8


def test_a_server_that_was_cut_off_is_asked_anew(hostile) -> None:
    turn = itertools.count()

    def first_drips(connection: socket.socket) -> None:
        (drips(http(b"", length=5000), b" ") if next(turn) == 0 else says(GOOD))(connection)

    retriever = HttpRetriever(settings(hostile(first_drips)))
    with pytest.raises(EnvironmentFault, match="no whole answer"):
        retriever.search("town", 3)
    assert retriever.search("town", 3) == FOUND


def test_a_pause_that_the_server_asks_for_is_kept_where_the_deadline_leaves_it(hostile) -> None:
    turn, times = itertools.count(), []

    def busy_once(connection: socket.socket) -> None:
        times.append(time.monotonic())
        (says(b"", "429 Wait", "Retry-After: 0.4") if next(turn) == 0 else says(GOOD))(connection)

    assert HttpRetriever(settings(hostile(busy_once), deadline_s=20)).search("town", 3) == FOUND
    assert times[1] - times[0] >= 0.4


def test_an_episode_becomes_env_error_in_this_process_too_and_the_next_one_is_played(hostile) -> None:
    """workers=0: nothing but the client's own deadline ends the wait."""
    retriever = HttpRetriever(settings(hostile(drips(http(b"", length=5000), b" "))))

    class Asked(SearchqaEnvironment):
        def reset(self, task: Task):  # type: ignore[no-untyped-def]
            return self.begin(Question("q", "Where?", ("Sorem",), ()))

    with EnvPool(lambda: Asked(lambda: retriever, 3, 8), 0, 60) as pool:
        for slot in (0, 1):
            pool.reset_many([(slot, Task("q", "searchqa", "train", "x", "x#q"))])
            (fault,) = pool.step_many([(slot, "search[town]")]).values()
            assert isinstance(fault, EnvFault)
            assert TEXT in fault.reason
        (again,) = pool.reset_many([(0, Task("q", "searchqa", "train", "x", "x#q"))]).values()
        assert isinstance(again, PoolStep)


def test_a_deadline_longer_than_a_step_is_refused_where_the_server_is_asked() -> None:
    short = ["env=searchqa", "speed.step_timeout_s=5"]
    assert load(short).env.longest_step_s() == 0  # BM25 waits for nobody
    with pytest.raises(ConfigError, match=r"may take 50 s .*speed\.step_timeout_s=5") as refused:
        load([*short, "env.retriever=http"])
    assert "env.retrievers.http.deadline_s" in str(refused.value)
    assert load([*short, "env.retriever=http", "env.retrievers.http.deadline_s=4"])


@pytest.mark.parametrize(
    "url", ["host:8000/retrieve", "ftp://host/x", "http://", "http://host:99999/", "", "http://[::1/"]
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(ConfigError, match=r"env\.retrievers\.http\.url"):
        load(["env=searchqa", "env.retriever=http", f"env.retrievers.http.url='{url}'"])

"""A small server that speaks vLLM's or SGLang's protocol over a real tiny model, and can be bad in many ways.

What it answers has the shapes that vLLM 0.32 gave here (`nox -s served` asks the real one) and that SGLang's
source states (`/generate`: meta_info.input_token_logprobs, input_top_logprobs).
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from sage.policy.decoding.generate import reply
from sage.policy.models.load import LanguageModel

Fault = Callable[["FakeServer", "Handler", Any], bool]
"""Spoils an answer: it may send one of its own and return True, or change the answer in place and return
False."""


class FakeServer(ThreadingHTTPServer):
    """`faults` are used up by the next scoring or replying requests, one each; `always` spoils every one."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, lm: LanguageModel, port: int = 0, engine: str = "vllm") -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.lm, self.engine = lm, engine
        self.name, self.root, self.reach = "tiny", "/models/tiny", 4096
        self.faults: list[Fault] = []
        self.always: Fault | None = None
        self.key: str | None = None
        self.asked: list[tuple[str, Any]] = []
        self.under_way, self.most = 0, 0
        self.lock = threading.Lock()
        self.connections: list[socket.socket] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has given up is what many tests are about: its trace would land in a later test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(lm: LanguageModel, port: int = 0, engine: str = "vllm") -> Iterator[FakeServer]:
    server = FakeServer(lm, port, engine)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        for connection in server.connections:  # those that are kept alive have threads of their own
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def do_GET(self) -> None:
        if not self._welcome():
            return
        if self.path != "/v1/models":
            return self.send(404, {"detail": "Not Found"})
        server = self.server
        card = {"id": server.name, "owned_by": server.engine, "root": server.root}
        self.send(200, {"object": "list", "data": [{**card, "max_model_len": server.reach}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._welcome():
            return
        server = self.server
        tokenizer = server.lm.tokenizer
        if self.path == "/tokenize":
            ids = tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
            return self.send(200, {"tokens": ids, "count": len(ids)})
        if self.path == "/detokenize":
            key = "text" if server.engine == "sglang" else "prompt"
            return self.send(200, {key: tokenizer.decode(body["tokens"])})
        with server.lock:
            server.asked.append((self.path, body))
            server.under_way += 1
            server.most = max(server.most, server.under_way)
            fault = server.faults.pop(0) if server.faults else server.always
        try:
            answer = self._answer(body)
            if fault is not None and fault(server, self, answer):
                return
            self.send(200, answer)
        finally:
            with server.lock:
                server.under_way -= 1

    def _welcome(self) -> bool:
        if self.server.key is None or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return True
        self.send(401, {"error": "Unauthorized"})
        return False

    def _answer(self, body: Any) -> Any:
        lm = self.server.lm
        if self.path == "/v1/chat/completions":
            text = lm.tokenizer.apply_chat_template(
                body["messages"], tokenize=False, add_generation_prompt=True
            )
            ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
            said = reply(lm, [ids], body["max_tokens"])[0]
            why = "length" if said.truncated else "stop"
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": said.text},
                "finish_reason": why,
            }
            return {
                "model": body["model"],
                "choices": [choice],
                "usage": {"completion_tokens": len(said.ids)},
            }
        if self.path == "/generate":
            return [self._sglang(ids, body) for ids in body["input_ids"]]
        choices = [self._vllm(i, ids, body) for i, ids in enumerate(body["prompt"])]
        return {"model": body["model"], "choices": choices[::-1]}  # by index, not by place

    def _vllm(self, index: int, ids: list[int], body: Any) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "text": "", "token_ids": [0], "prompt_token_ids": ids}
        if (k := body.get("prompt_logprobs")) is None:
            said = reply(self.server.lm, [ids], body["max_tokens"])[0]
            why = "length" if said.truncated else "stop"
            return choice | {"text": said.text, "token_ids": said.ids, "finish_reason": why}
        listed: list[Any] = [None]
        for token, row in zip(ids[1:], logprobs(self.server.lm, ids), strict=False):
            best = row.topk(k)
            entries = {int(i): float(p) for p, i in zip(best.values, best.indices, strict=True)}
            entries |= {token: float(row[token])}
            rank = {token: int((row >= row[token]).sum())}
            listed.append(
                {
                    str(i): {"logprob": p, "rank": rank.get(i, 1), "decoded_token": "x"}
                    for i, p in entries.items()
                }
            )
        return choice | {"prompt_logprobs": listed}

    def _sglang(self, ids: list[int], body: Any) -> dict[str, Any]:
        how = body["sampling_params"]
        if not body.get("return_logprob"):
            said = reply(self.server.lm, [ids], how["max_new_tokens"])[0]
            why = {"type": "length" if said.truncated else "stop"}
            return {"text": said.text, "output_ids": said.ids, "meta_info": {"finish_reason": why}}
        tokens: list[Any] = [[None, ids[0], None]]
        tops: list[Any] = [None]
        for token, row in zip(ids[1:], logprobs(self.server.lm, ids), strict=False):
            best = row.topk(body["top_logprobs_num"])
            tokens.append([float(row[token]), token, None])
            tops.append([[float(p), int(i), None] for p, i in zip(best.values, best.indices, strict=True)])
        return {"text": "", "meta_info": {"input_token_logprobs": tokens, "input_top_logprobs": tops}}

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@torch.no_grad()
def logprobs(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    """[L, V] in float32."""
    return lm.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


# --- ways to be bad


def status(number: int, headers: dict[str, str] | None = None) -> Fault:
    def fault(server: FakeServer, handler: Handler, answer: Any) -> bool:
        handler.send(number, {"error": {"message": "no"}}, headers)
        return True

    return fault


def cut_json(server: FakeServer, handler: Handler, answer: Any) -> bool:
    handler.send(200, json.dumps(answer).encode()[:-20])
    return True


def broken_off(server: FakeServer, handler: Handler, answer: Any) -> bool:
    """Promises more bytes than it sends, and hangs up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"model": "tiny", "choices": [')
    handler.close_connection = True
    return True


def slow(seconds: float) -> Fault:
    def fault(server: FakeServer, handler: Handler, answer: Any) -> bool:
        time.sleep(seconds)
        return False

    return fault


def changed(change: Callable[[Any], None]) -> Fault:
    """Changes the answer in place."""

    def fault(server: FakeServer, handler: Handler, answer: Any) -> bool:
        change(answer)
        return False

    return fault

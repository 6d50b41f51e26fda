"""A server that speaks Search-R1's protocol over BM25: what its users' `retrieval_server.py` answers.

    python tests/envs/searchqa/retrieval_server.py <corpus.jsonl> [--fail N] [--delay S]

Prints its port when it is ready. `--fail N` answers the first N requests with status 503, `--delay S` waits
so long before each answer. The format was read off Search-R1's server and client (`POST /retrieve`).
"""

from __future__ import annotations

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sage.envs.searchqa.retrieval.bm25 import Bm25
from sage.envs.searchqa.retrieval.passage import read_corpus


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    retriever: Bm25
    fail = 0
    delay = 0.0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/retrieve":
            return self._send(404, {"detail": "Not Found"})
        if Handler.fail > 0:
            Handler.fail -= 1
            return self._send(503, {"detail": "starting"})
        time.sleep(self.delay)
        found = [self.retriever.search(query, body["topk"]) for query in body["queries"]]
        documents = [[{"id": str(i), "contents": p.contents} for i, p in enumerate(ps)] for ps in found]
        if body["return_scores"]:
            result: object = [[{"document": d, "score": 1.0} for d in ds] for ds in documents]
        else:
            result = documents
        return self._send(200, {"result": result})

    def _send(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--fail", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    given = parser.parse_args()
    Handler.retriever = Bm25(read_corpus(given.corpus), 1.5, 0.75)
    Handler.fail, Handler.delay = given.fail, given.delay
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()

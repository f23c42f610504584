"""A chat model on a real port that answers as it is told: well, wrongly, late, not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ModelStub:
    """`answer`: facts → what the model says (a text, or a dict that is written as JSON), or (status, body)."""

    def __init__(self, answer: Callable[[dict[str, list[str]]], Any]) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.requests.append(body)
                stub.headers.append(dict(self.headers))
                said = stub.answer(json.loads(body["messages"][1]["content"]))
                if isinstance(said, tuple):
                    status, text = said
                else:
                    content = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
                    status, text = 200, json.dumps({"choices": [{"message": {"content": content}}]})
                try:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(text.encode())
                except OSError:
                    return  # the client has gone

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@contextmanager
def running(answer: Callable[[dict[str, list[str]]], Any]) -> Iterator[ModelStub]:
    stub = ModelStub(answer)
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.released.set()
        stub.server.shutdown()
        stub.server.server_close()
        thread.join()

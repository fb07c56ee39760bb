"""A small server of OpenAI's API that says what a test told it to say."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Script:
    """What the fake answers, and what it was asked."""

    chunks: list[Any] = field(default_factory=list)
    status: int = 200
    body: Any = None
    health: tuple[int, Any] = (200, {"status": "ok"})
    metrics: str = ""
    whole: bool = True
    hold: bool = False
    slow: float = 0.0
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One piece of a stream."""
    delta = {"content": content, **more.pop("delta", {})}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more.pop("choice", {})}
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [choice],
        **more,
    }


class Handler(BaseHTTPRequestHandler):
    """Answers as the script of its server says."""

    script: Script

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002
        """Says nothing."""

    def reply(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            model = {"id": "fake", "object": "model", "created": 1, "owned_by": "us"}
            self.reply(200, {"object": "list", "data": [model]})
        elif self.path == "/health":
            self.reply(*self.script.health)
        else:
            self.reply(200, self.script.metrics, "text/plain")

    def do_POST(self) -> None:
        self.script.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.script.keys.append(self.headers["authorization"])
        if self.script.status != 200:
            self.reply(self.script.status, self.script.body)
            return
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.stream()
        self.close_connection = True

    def stream(self) -> None:
        try:
            for each in self.script.chunks:
                time.sleep(self.script.slow)
                self.event(json.dumps(each))
            while self.script.hold and not self.script.left.wait(0.02):
                self.event(json.dumps(chunk("on ")))
        except OSError:
            self.script.left.set()
            return
        if self.script.whole:
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

    def event(self, data: str) -> None:
        text = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    """The script's server on a free port of the loopback."""
    handler = type("Scripted", (Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield script
        finally:
            script.left.set()
            server.shutdown()
            thread.join()

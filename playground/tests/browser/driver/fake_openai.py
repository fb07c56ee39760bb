"""An OpenAI server that says what a test wants to hear, goes down when told to, and remembers who asked."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Piece = str | dict[str, Any]
"""Of an answer: its text, or a whole delta."""
Script = Callable[[Request], Iterable[Piece]]
"""A request → the pieces of its answer. It raises ``Refuse``, or its pieces raise ``HangUp``."""
MODEL = "a-model-of-the-test"


class Refuse(Exception):
    """The request is refused, with a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class HangUp(Exception):
    """The server dies in the middle of its answer."""


def said(request: Request) -> str:
    """The text of a request's last message."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def echo(request: Request) -> Iterator[Piece]:
    """Repeats what it was told."""
    yield from ("You ", "said: ", said(request))


class FakeOpenAI:
    """Keeps its port over every ``stop`` and ``start``.

    Args:
        port: to listen on.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.script: Script = echo
        self.asked: list[Request] = []
        self.keys: set[str] = set()
        self.paths: set[str] = set()
        self._http: ThreadingHTTPServer | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Listen."""
        handler = type("Handler", (_Handler,), {"fake": self})
        self._http = _Listener(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Connections are refused from now on."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def reset(self) -> None:
        """Up, and as it was in the beginning."""
        self.script = echo
        self.asked.clear()
        if self._http is None:
            self.start()


class _Listener(ThreadingHTTPServer):
    request_queue_size = 64  # so many may knock at once


class _Handler(BaseHTTPRequestHandler):
    """One request a connection, so that nobody talks on with a server that is down."""

    fake: FakeOpenAI
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        self.fake.keys.add(self.headers.get("authorization", ""))
        self.fake.paths.add(self.path)
        if self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "test"}
            self._json(200, {"object": "list", "data": [model]})
        else:
            self._error(Refuse(404, "There is no such page."))

    def do_POST(self) -> None:
        self.fake.keys.add(self.headers.get("authorization", ""))
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.fake.asked.append(request)
        try:
            pieces = self.fake.script(request)
        except Refuse as refusal:
            self._error(refusal)
            return
        with contextlib.suppress(HangUp, ConnectionError):
            self._stream(pieces)

    def _stream(self, pieces: Iterable[Piece]) -> None:
        self._head(200, "text/event-stream", ("transfer-encoding", "chunked"))
        count, ending = 0, "stop"
        for piece in pieces:
            count += 1
            delta = {"content": piece} if isinstance(piece, str) else piece
            ending = "tool_calls" if "tool_calls" in delta else ending
            self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": ending}]})
        usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, part: Mapping[str, Any]) -> None:
        whole = {"id": "chat", "object": "chat.completion.chunk", "created": 0, "model": MODEL, **part}
        self._chunk(f"data: {json.dumps(whole)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _error(self, refusal: Refuse) -> None:
        error = {"message": str(refusal), "type": "invalid_request_error", "param": None, "code": None}
        self._json(refusal.status, {"error": error})

    def _json(self, status: int, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        self._head(status, "application/json", ("content-length", str(len(data))))
        self.wfile.write(data)

    def _head(self, status: int, kind: str, length: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("content-type", kind), length, ("connection", "close")):
            self.send_header(name, value)
        self.end_headers()

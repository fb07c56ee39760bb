"""A fake OpenAI server with scripted responses, which records requests and can be stopped and started."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Part = str | dict[str, Any]
"""A part of a response: text, or a complete choice."""
Script = Callable[[Request], Iterable[Part]]
"""A request → the parts of its response. It may raise ``Refuse``, its iterator any exception below."""
MODEL = "a-model-of-the-test"
MODELS = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "test"}]}
CHUNK = {"id": "chat", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": []}


class Refuse(Exception):
    """The request gets an error with a status; after the first part, an error event."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class ConnectionLost(Exception):
    """The server closes the connection during the response."""


class StreamTruncated(Exception):
    """The response ends without a finish reason."""


def last_text(request: Request) -> str:
    """The text of a request's last message."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def echo(request: Request) -> Iterator[Part]:
    """Repeats the last message."""
    yield from ("You ", "said: ", last_text(request))


def call(name: str, arguments: str, number: str = "call_1") -> Part:
    """A tool call."""
    function = {"name": name, "arguments": arguments}
    return {"delta": {"tool_calls": [{"index": 0, "id": number, "type": "function", "function": function}]}}


class FakeOpenAI:
    """Listens on a free port of loopback, which stays the same after ``stop`` and ``start``.

    ``pages`` has the other responses: path → status, and text or JSON. ``disconnected`` is set when a client
    disconnects before the end of a response.
    """

    def __init__(self) -> None:
        self.port = 0
        self.script: Script = echo
        self.pages: dict[str, tuple[int, Any]] = {"/v1/models": (200, MODELS)}
        self.requests: list[Request] = []
        self.forms: list[bytes] = []
        self.keys: set[str] = set()
        self.paths: set[str] = set()
        self.disconnected = threading.Event()
        self._http: ThreadingHTTPServer | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Listen."""
        handler = type("Handler", (_Handler,), {"fake": self})
        self._http = _Listener(("127.0.0.1", self.port), handler)
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def reset(self) -> None:
        """Start, with the initial state."""
        self.script = echo
        self.requests.clear()
        self.disconnected.clear()
        if self._http is None:
            self.start()


class _Listener(ThreadingHTTPServer):
    request_queue_size = 64  # connections that wait to be accepted


class _Handler(BaseHTTPRequestHandler):
    """One request per connection, so that no connection outlives ``stop``."""

    fake: FakeOpenAI
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """No log."""

    def do_GET(self) -> None:
        self.fake.keys.add(self.headers.get("authorization", ""))
        self.fake.paths.add(self.path)
        self._page(*self.fake.pages.get(self.path, (404, _error("There is no such page."))))

    def do_POST(self) -> None:
        self.fake.keys.add(self.headers.get("authorization", ""))
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/audio/transcriptions":
            self._transcribe(body)
            return
        request = json.loads(body)
        self.fake.requests.append(request)
        try:
            self._stream(self.fake.script(request))
        except Refuse as refusal:
            self._page(refusal.status, _error(str(refusal)))
        except ConnectionLost:
            pass
        except ConnectionError:
            self.fake.disconnected.set()

    def _transcribe(self, form: bytes) -> None:
        """Two deltas and the complete text, or an error for a file that contains ``refused``."""
        self.fake.forms.append(form)
        if b"refused" in form:
            self._page(400, _error("The file is not audio."))
            return
        self._head(200, "text/event-stream", ("transfer-encoding", "chunked"))
        for delta in ("Good ", "evening."):
            self._event({"type": "transcript.text.delta", "delta": delta})
        usage = {"type": "tokens", "input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
        self._event({"type": "transcript.text.done", "text": "Good evening.", "usage": usage})
        self._chunk(b"")

    def _stream(self, parts: Iterable[Part]) -> None:
        self._head(200, "text/event-stream", ("transfer-encoding", "chunked"))
        try:
            self._send_chunks(parts)
        except Refuse as refusal:
            self._event(_error(str(refusal)))
        except StreamTruncated:
            pass
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _send_chunks(self, parts: Iterable[Part]) -> None:
        count, ending = 0, "stop"
        for part in parts:
            count += 1
            choice = {"delta": {"content": part}} if isinstance(part, str) else part
            ending = "tool_calls" if "tool_calls" in choice["delta"] else ending
            self._event({**CHUNK, "choices": [{"index": 0, "finish_reason": None, **choice}]})
        self._event({**CHUNK, "choices": [{"index": 0, "finish_reason": ending, "delta": {}}]})
        usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
        self._event({**CHUNK, "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 4}}})

    def _event(self, event: Mapping[str, Any]) -> None:
        self._chunk(f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _page(self, status: int, body: Any) -> None:
        text = isinstance(body, str)
        data = (body if text else json.dumps(body)).encode()
        self._head(status, "text/plain" if text else "application/json", ("content-length", str(len(data))))
        self.wfile.write(data)

    def _head(self, status: int, kind: str, length: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("content-type", kind), length, ("connection", "close")):
            self.send_header(name, value)
        self.end_headers()


def _error(sentence: str) -> dict[str, Any]:
    return {"error": {"message": sentence, "type": "invalid_request_error", "param": None, "code": None}}

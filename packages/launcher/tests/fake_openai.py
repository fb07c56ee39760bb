"""A server that speaks as much of OpenAI's API as the clients need, in a thread, without a model."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeServer:
    """What it was asked, and how it answers.

    Args:
        pieces: of each answer.
        pause_s: before each piece.
        template: tokens that a chat template adds to a user's words; a word is a token.
        tokenize: whether it counts tokens.
        ignore_eos: whether it knows that parameter.
        usage: whether it sends usage.
        fail: status of every n-th answer from the second on, n → status.
        break_off: answers end after two pieces with an error event.
    """

    url: str = ""
    pieces: tuple[str, ...] = ("Hello", " there", "!")
    pause_s: float = 0.0
    template: int = 5
    tokenize: bool = True
    ignore_eos: bool = True
    usage: bool = True
    fail: dict[int, int] = field(default_factory=dict)
    break_off: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    forms: list[bytes] = field(default_factory=list)
    cut_off: int = 0

    def count(self, messages: list[dict[str, Any]]) -> int:
        content = messages[-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        return len(text.split()) + self.template


class _Spoken(BaseHTTPRequestHandler):
    """What answers are made of, whatever is asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

    def _chunk(self, choices: list[Any], usage: dict[str, int] | None = None) -> None:
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
        self._event({**head, "choices": choices, "usage": usage})

    def _event(self, value: Any) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "type": "invalid_request_error", "param": None}})

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small class
    class Handler(_Spoken):
        def do_POST(self) -> None:
            if self.path == "/v1/audio/transcriptions":
                self._transcribe(self.rfile.read(int(self.headers["Content-Length"])))
                return
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize" and server.tokenize:
                self._json(200, {"count": server.count(body["messages"]), "max_model_len": 4096})
            elif self.path == "/v1/chat/completions":
                self._chat(body)
            else:
                self._error(404, "there is no such place")

        def _transcribe(self, form: bytes) -> None:
            """A segment of a second for each piece."""
            server.forms.append(form)
            if b"refused" in form:
                self._error(400, "The file 'file' is not audio.")
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("x-audio-seconds", str(len(server.pieces)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for number, piece in enumerate(server.pieces):
                if server.break_off and number == 2:
                    return
                times = {"id": str(number), "start": number, "end": number + 1, "speaker": ""}
                self._event({"type": "transcript.text.segment", "text": piece, **times})
            self._event({"type": "transcript.text.done", "text": "".join(server.pieces), "duration": 3.0})

        def _chat(self, body: dict[str, Any]) -> None:
            server.asked.append(body)
            if body["model"] != "fake":
                self._error(404, f"The model '{body['model']}' does not exist.")
            elif "ignore_eos" in body and not server.ignore_eos:
                self._error(400, "Unknown parameter: 'ignore_eos'.")
            elif status := next((s for n, s in server.fail.items() if len(server.asked) % n == 0), 0):
                self._error(status, "no.")
            else:
                self._stream(body)

        def _stream(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for number, piece in enumerate(server.pieces):
                    if server.break_off and number == 2:
                        self._event({"error": {"message": "the engine broke", "type": "server_error"}})
                        return
                    time.sleep(server.pause_s)
                    self._chunk([{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
                self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
                if server.usage and body.get("stream_options", {}).get("include_usage"):
                    self._chunk([], self._usage(body))
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                server.cut_off += 1

        def _usage(self, body: dict[str, Any]) -> dict[str, int]:
            prompt, new = server.count(body["messages"]), len(server.pieces)
            return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}

    return Handler


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    """Serves on a free port until the end."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()

"""Writing responses to a connection, including those that the application does not see."""

import asyncio
import http
import json
import uuid
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

from gemma_gateway.auth import HEALTH
from gemma_gateway.errors import ApiError, ServiceUnavailable

_STATUS_LINE: Final = b"HTTP/1.1 "
"""The beginning of every response."""
_MONITORING_PATHS: Final = (*HEALTH, "/metrics")


class ResponseWriter:
    """The transport that uvicorn's response cycle writes to. Counts bytes, and can send the first ones early.

    Args:
        finish: called instead of closing the transport after a response that ends the connection.
    """

    def __init__(self, transport: asyncio.Transport, finish: Callable[[], None]) -> None:
        self.ended = False
        """Nothing more may be written."""
        self._transport = transport
        self._finish = finish
        self._written = 0
        self._ahead = 0

    def write(self, data: bytes) -> None:
        """Writes a part of a response."""
        if self._ahead and data:
            data, self._ahead = data[self._ahead :], 0
        self._put(data)

    def write_ahead(self) -> None:
        """Writes the next byte of the status line before there is a response, as a probe."""
        if self._ahead < len(_STATUS_LINE):
            self._put(_STATUS_LINE[self._ahead : self._ahead + 1])
            self._ahead += 1

    def end(self) -> None:
        """Closes the sending side once everything is sent."""
        if not self.ended:
            self.ended = True
            self._transport.write_eof()

    def close(self) -> None:
        """Called by uvicorn when the response ends the connection."""
        self._finish()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self.ended or self._transport.is_closing()

    @property
    def waiting(self) -> int:
        """Bytes that the system's send buffer has no room for."""
        return self._transport.get_write_buffer_size()

    @property
    def accepted(self) -> int:
        """Bytes that the system has accepted so far."""
        return self._written - self.waiting

    def _put(self, data: bytes) -> None:
        if not self.is_closing():
            self._written += len(data)
            self._transport.write(data)


class ResponseCycle(RequestResponseCycle):
    """uvicorn's response cycle; knows whether the response is an event stream."""

    is_event_stream = False

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """See ASGI."""
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            self.is_event_stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        await super().send(message)  # type: ignore[arg-type]


class ReadFlowControl(FlowControl):
    """uvicorn's flow control with a hold, during which nothing is read."""

    held = False

    def hold(self) -> None:
        """Stop reading until ``release``."""
        self.pause_reading()
        self.held = True

    def release(self) -> None:
        """End the hold."""
        self.held = False

    def resume_reading(self) -> None:
        """See uvicorn."""
        if not self.held:
            super().resume_reading()


def error_response(error: ApiError, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """The complete response to a request that the application has not seen; it ends the connection."""
    body = json.dumps(error.body()).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "x-request-id": _request_id(),
        **error.headers,
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}".encode()]
    lines += [b"%b: %b" % header for header in default_headers]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])


def overloaded(limit: int) -> ServiceUnavailable:
    """The error for a connection over the limit."""
    sentence = f"The server has reached its limit of {limit} connections with requests in progress."
    headers = {"Connection": "close", "x-request-id": _request_id()}
    return ServiceUnavailable(sentence, code="too_many_connections", headers=headers)


def only_health(app: ASGIApp, limit: int) -> ASGIApp:
    """The application for health checks and metrics; 503 for all other paths."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = app if scope["path"] in _MONITORING_PATHS else overloaded(limit).response()
        await chosen(scope, receive, send)

    return respond


def _request_id() -> str:
    return f"req_{uuid.uuid4().hex}"

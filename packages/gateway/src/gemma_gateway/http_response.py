"""A connection's way out: what a response is written to, and responses that no application makes."""

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
"""How every response begins, whatever it will say."""
_WATCHED_PATHS: Final = (*HEALTH, "/metrics")


class ResponseWriter:
    """A transport, as uvicorn's response cycle uses it; counts bytes, and can send the first ones early.

    Args:
        finish: called instead of closing the transport when a response ends the connection.
    """

    def __init__(self, transport: asyncio.Transport, finish: Callable[[], None]) -> None:
        self.ended = False
        """Nothing more may be written."""
        self._transport = transport
        self._finish = finish
        self._written = 0
        self._ahead = 0

    def write(self, data: bytes) -> None:
        """Part of a response."""
        if self._ahead and data:
            data, self._ahead = data[self._ahead :], 0
        self._put(data)

    def write_ahead(self) -> None:
        """The next byte of the status line, before there is a response: only a client that left minds it."""
        if self._ahead < len(_STATUS_LINE):
            self._put(_STATUS_LINE[self._ahead : self._ahead + 1])
            self._ahead += 1

    def end(self) -> None:
        """Tells the client that nothing more comes, once everything is sent."""
        if not self.ended:
            self.ended = True
            self._transport.write_eof()

    def close(self) -> None:
        """The response ends the connection."""
        self._finish()

    def is_closing(self) -> bool:
        """Nothing more can be written."""
        return self.ended or self._transport.is_closing()

    @property
    def waiting(self) -> int:
        """Bytes that the client's and the system's buffers have no room for."""
        return self._transport.get_write_buffer_size()

    @property
    def accepted(self) -> int:
        """Bytes that were handed to the system so far."""
        return self._written - self.waiting

    def _put(self, data: bytes) -> None:
        if not self.is_closing():
            self._written += len(data)
            self._transport.write(data)


class Cycle(RequestResponseCycle):
    """uvicorn's; knows whether its response is a stream of events."""

    is_event_stream = False

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """See ASGI."""
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            self.is_event_stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        await super().send(message)  # type: ignore[arg-type]


class Flow(FlowControl):
    """uvicorn's; while it is held, nothing is read, whoever wants to."""

    held = False

    def hold(self) -> None:
        """Read nothing until released."""
        self.pause_reading()
        self.held = True

    def release(self) -> None:
        """Read again as others wish."""
        self.held = False

    def resume_reading(self) -> None:
        """See uvicorn."""
        if not self.held:
            super().resume_reading()


def as_bytes(error: ApiError, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """The whole response, for a request that no application saw; the connection ends with it."""
    body = json.dumps(error.envelope()).encode()
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
    """What a client is told whose connection has no place."""
    sentence = f"The server answers requests on {limit} connections, which is as many as it may have open."
    headers = {"Connection": "close", "x-request-id": _request_id()}
    return ServiceUnavailable(sentence, code="too_many_connections", headers=headers)


def only_health(app: ASGIApp, limit: int) -> ASGIApp:
    """The application for health checks and metrics; 503 for all else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = app if scope["path"] in _WATCHED_PATHS else overloaded(limit).response()
        await chosen(scope, receive, send)

    return answer


def _request_id() -> str:
    return f"req_{uuid.uuid4().hex}"

"""Writing responses to a connection: byte counts, probes, flow control."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import Message
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

_STATUS_LINE: Final = b"HTTP/1.1 "
"""The beginning of every response."""


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

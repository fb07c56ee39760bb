"""Server-sent events: JSON objects with keep-alive pings, ended by the API's last event or an error.

Why this is not sse-starlette: docs/decisions/015-server-sent-events.md.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any, Final

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gemma_gateway.disconnect import ClientDisconnected, while_connected
from gemma_gateway.errors import ApiError, InternalError, ServiceUnavailable, note_error
from gemma_gateway.json_schema_report import JsonSchemaReport

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedEvent:
    """An event with a line ``event:``.

    Args:
        name: its type.
        data: the object, or its JSON.
        padded: whether it is padded in a stream whose events are.
    """

    name: str
    data: BaseModel | bytes
    padded: bool = True


Event = BaseModel | bytes | NamedEvent
"""An object, its JSON, or either with a name."""
Events = AsyncGenerator[Event, None]
DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"
"""A comment, which clients ignore (HTML standard, 9.2.6)."""
PAD: Final = 64
"""Padded events have sizes that are multiples of this, bytes: most tokens differ by less."""
ERROR_SEND_SECONDS: Final = 0.5
"""How long the sending of an error event may take."""


def to_openai_error_event(error: ApiError) -> bytes:
    """The event for an error of chat completions and completions."""
    return b"data: %b\n\n" % bytes(error.response().body)


@dataclass(frozen=True)
class StreamProtocol:
    """What the streams of an API have besides the events.

    Args:
        end: sent after the last event.
        ping: sent when nothing else was sent for a while.
        error: the event that ends a stream with an error.
    """

    end: bytes = DONE
    ping: bytes = PING
    error: Callable[[ApiError], bytes] = to_openai_error_event


CHAT_PROTOCOL: Final = StreamProtocol()
"""Of chat completions and completions."""


class EventStream(Response):
    """Sends events as they come, then the protocol's end. After an error its event is the last.

    Create it with ``open_stream``. When the client disconnects, the events are closed at once.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: "asyncio.Future[Event]",
        rest: Events,
        ping_seconds: float,
        padded: bool,
        report: JsonSchemaReport,
        protocol: StreamProtocol,
    ) -> None:
        known = report.headers
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **known})
        del self.headers["content-length"]
        self.first = first
        self.rest = rest
        self.ping_seconds = ping_seconds
        self.padded = padded
        self.report = report
        self.protocol = protocol
        self._sending = False
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream until it ends or the client disconnects."""
        async with aclosing(self.rest):
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                self._sent_at = asyncio.get_running_loop().time()
                await while_connected(receive, self._run(send))
            except ClientDisconnected:
                log.info("the client disconnected")
            except ApiError as error:
                await self._send_error(scope, send, error)
            except Exception:
                log.exception("the stream failed")
                await self._send_error(scope, send, InternalError())
            except asyncio.CancelledError:  # the server shuts down
                shutdown = ServiceUnavailable("The server is shutting down.")
                await _send(send, self.protocol.error(shutdown), last=True)
                raise
            finally:
                await _cancelled(self.first)

    async def _run(self, send: Send) -> None:
        pings = asyncio.create_task(self._ping(send))
        try:
            async with aclosing(self._events()) as events:
                async for event in events:
                    await self._send_event(send, event)
        finally:
            await _cancelled(pings)
        await _send(send, b"", last=True)

    async def _send_event(self, send: Send, event: bytes) -> None:
        self._sending = True
        await _send(send, event)
        self._sending = False
        self._sent_at = asyncio.get_running_loop().time()

    async def _ping(self, send: Send) -> None:
        """Sends a ping whenever nothing was sent for ``ping_seconds``; none while an event waits to be sent.

        Without pings a proxy would close the connection during a long prefill.
        """
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() - self._sent_at >= self.ping_seconds and not self._sending:
                await _send(send, self.protocol.ping)
                self._sent_at = loop.time()
            due = self._sent_at + self.ping_seconds
            await asyncio.sleep(max(due - loop.time(), self.ping_seconds / 10))

    async def _send_error(self, scope: Scope, send: Send, error: ApiError) -> None:
        """Sends the error as the last event; does not wait for a client that does not read."""
        note_error(scope, error.code)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ERROR_SEND_SECONDS):
                await _send(send, self.protocol.error(error), last=True)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        yield _event(await self.first, self.padded)
        async for event in self.rest:
            yield _event(event, self.padded)
        for name, value in self.report.headers.items():
            if name not in self.headers:  # became known after the headers were sent
                yield f": {name}: {value}\n\n".encode()
        if self.protocol.end:
            yield self.protocol.end


async def open_stream(
    receive: Receive,
    events: Events,
    ping_seconds: float,
    padded: bool = False,
    report: JsonSchemaReport | None = None,
    protocol: StreamProtocol = CHAT_PROTOCOL,
) -> EventStream:
    """The response, once its first event is available, so that an error before it has its own status.

    If the first event takes longer than ``ping_seconds``, the response begins without it; a later error is
    then an event.

    Args:
        receive: the ASGI channel.
        events: what is sent.
        ping_seconds: how long the connection may be silent.
        padded: each event gets a field ``obfuscation`` of random letters, so that its size reveals less about
            its content.
        report: about JSON schemas. What is known when the response begins is sent in headers, the rest in
            comments at the end of the stream.
        protocol: of the API.

    Raises:
        ClientDisconnected: the client disconnected first.
        ApiError: raised by ``events``.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await while_connected(receive, asyncio.wait({first}, timeout=ping_seconds))
    except BaseException:
        await _cancelled(first)
        raise
    if first.done():
        first.result()  # raises
    return EventStream(first, events, ping_seconds, padded, report or JsonSchemaReport(), protocol)


async def _cancelled(task: "asyncio.Future[Any]") -> None:
    """Cancels a task and waits until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _send(send: Send, body: bytes, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


def _event(event: Event, padded: bool) -> bytes:
    if isinstance(event, NamedEvent):
        return b"event: %b\n%b" % (event.name.encode(), _event(event.data, padded and event.padded))
    data = event if isinstance(event, bytes) else event.model_dump_json(exclude_unset=True).encode()
    return b"data: %b\n\n" % (_pad(data) if padded else data)


def _pad(data: bytes) -> bytes:
    """A JSON object with one more field, so that its size is a multiple of ``PAD``."""
    field = b',"obfuscation":"%b"}'
    size = -(len(data) - 1 + len(field) - 2) % PAD
    return data[:-1] + field % token_urlsafe(size)[:size].encode()

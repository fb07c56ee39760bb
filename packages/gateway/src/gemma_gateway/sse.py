"""Server-sent events."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from secrets import token_urlsafe
from typing import Final

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gemma_gateway.disconnect import ClientGone, while_connected
from gemma_gateway.errors import ApiError, InternalError, ServiceUnavailable, note_error
from gemma_gateway.schema_report import VALID, SchemaReport

log = logging.getLogger(__name__)
Events = AsyncGenerator[BaseModel, None]
DONE: Final = b"data: [DONE]\n\n"
PAD: Final = 64
"""Sizes of padded events are multiples of it, bytes: most tokens differ by less."""
LAST_WORDS: Final = 0.5
"""Seconds for an error event to be sent."""


class EventStream(Response):
    """Sends events as they come, then ``[DONE]``; an error on the way is the last event, without ``[DONE]``.

    Make one with ``open_stream``. A client that leaves ends the events at once.
    """

    media_type = "text/event-stream"

    def __init__(self, first: BaseModel, rest: Events, padded: bool, report: SchemaReport) -> None:
        told = report.headers
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **told})
        del self.headers["content-length"]
        self.first = first
        self.rest = rest
        self.padded = padded
        self.report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or as much as the client waits for."""
        async with aclosing(self.rest):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await while_connected(receive, self._pump(send))
            except ClientGone:
                log.info("the client left")
            except ApiError as error:
                await self._break_off(scope, send, error)
            except Exception:
                log.exception("the stream broke")
                await self._break_off(scope, send, InternalError())
            except asyncio.CancelledError:  # the server shuts down
                await _send(send, _error(ServiceUnavailable("The server is shutting down.")), last=True)
                raise

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._bytes()) as pieces:
            async for piece in pieces:
                await _send(send, piece)
        await _send(send, b"", last=True)

    async def _break_off(self, scope: Scope, send: Send, error: ApiError) -> None:
        """Tells why; a client that does not read is not waited for."""
        note_error(scope, error.code)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await _send(send, _error(error), last=True)

    async def _bytes(self) -> AsyncGenerator[bytes, None]:
        yield _event(self.first, self.padded)
        async for event in self.rest:
            yield _event(event, self.padded)
        if VALID not in self.headers and (comment := self.report.comment):
            yield comment
        yield DONE


async def open_stream(
    receive: Receive, events: Events, padded: bool = False, report: SchemaReport | None = None
) -> EventStream:
    """The response, once its first event is there: an error before that still gets its own status.

    Args:
        receive: the ASGI channel.
        events: what is sent.
        padded: each event gets a field ``obfuscation`` of random letters, so that its size tells less about
            what it says.
        report: about schemas; its headers are those that are known with the first event.

    Raises:
        ClientGone: the client left first.
        ApiError: what ``events`` raised.
    """
    first = await while_connected(receive, anext(events))
    return EventStream(first, events, padded, report or SchemaReport())


async def _send(send: Send, body: bytes, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


def _event(model: BaseModel, padded: bool) -> bytes:
    data = model.model_dump_json(exclude_unset=True).encode()
    return b"data: %b\n\n" % (_pad(data) if padded else data)


def _pad(data: bytes) -> bytes:
    """A JSON object with a field more, its size a multiple of ``PAD``."""
    field = b',"obfuscation":"%b"}'
    size = -(len(data) - 1 + len(field) - 2) % PAD
    return data[:-1] + field % token_urlsafe(size)[:size].encode()


def _error(error: ApiError) -> bytes:
    return b"data: %b\n\n" % bytes(error.response().body)

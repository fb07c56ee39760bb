"""Server-sent events."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gemma_gateway.disconnect import ClientGone, while_connected
from gemma_gateway.errors import ApiError, InternalError, ServiceUnavailable

log = logging.getLogger(__name__)
Events = AsyncGenerator[BaseModel, None]
DONE: Final = b"data: [DONE]\n\n"


class EventStream(Response):
    """Sends events as they come, then ``[DONE]``; an error on the way is the last event, without ``[DONE]``.

    Make one with ``open_stream``. A client that leaves ends the events at once.
    """

    media_type = "text/event-stream"

    def __init__(self, first: BaseModel, rest: Events) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.first = first
        self.rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send all of it, or as much as the client waits for."""
        async with aclosing(self.rest):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await while_connected(receive, self._pump(send))
            except ClientGone:
                log.info("the client left")
            except asyncio.CancelledError:  # the server shuts down
                await _send(send, _error(ServiceUnavailable("The server is shutting down.")), last=True)
                raise

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._bytes()) as pieces:
            async for piece in pieces:
                await _send(send, piece)
        await _send(send, b"", last=True)

    async def _bytes(self) -> AsyncGenerator[bytes, None]:
        try:
            yield _event(self.first)
            async for event in self.rest:
                yield _event(event)
            yield DONE
        except ApiError as error:
            yield _error(error)
        except Exception:
            log.exception("the stream broke")
            yield _error(InternalError())


async def open_stream(receive: Receive, events: Events) -> EventStream:
    """The response, once its first event is there: an error before that still gets its own status.

    Raises:
        ClientGone: the client left first.
        ApiError: what ``events`` raised.
    """
    return EventStream(await while_connected(receive, anext(events)), events)


async def _send(send: Send, body: bytes, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


def _event(model: BaseModel) -> bytes:
    return b"data: %b\n\n" % model.model_dump_json(exclude_unset=True).encode()


def _error(error: ApiError) -> bytes:
    return b"data: %b\n\n" % bytes(error.response().body)

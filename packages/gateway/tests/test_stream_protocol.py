"""Streams of APIs whose events have names, and whose end and errors are not those of chat completions."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import BaseModel

from gemma_gateway.errors import ApiError, BadRequest
from gemma_gateway.sse import Event, NamedEvent, StreamProtocol, open_stream

PROTOCOL = StreamProtocol(
    end=b"",
    ping=b"event: ping\ndata: {}\n\n",
    error=lambda error: b'event: error\ndata: "%b"\n\n' % (error.code or "").encode(),
)


class Text(BaseModel):
    text: str


async def send_all(
    events: AsyncGenerator[Event, None], ping_seconds: float = 5.0, padded: bool = False
) -> bytes:
    """The body of the response."""
    bodies: list[bytes] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        bodies.append(message.get("body", b""))

    response = await open_stream(receive, events, ping_seconds, padded, protocol=PROTOCOL)
    await response({"type": "http"}, receive, send)
    return b"".join(bodies)


async def test_a_named_event_has_a_line_with_its_name() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield NamedEvent("start", Text(text="a"))
        yield NamedEvent("delta", b'{"text":"b"}')

    assert await send_all(events()) == (
        b'event: start\ndata: {"text":"a"}\n\nevent: delta\ndata: {"text":"b"}\n\n'
    )


async def test_a_named_event_is_padded() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield NamedEvent("start", Text(text="a"))

    name, data, *_ = (await send_all(events(), padded=True)).split(b"\n")
    assert name == b"event: start"
    assert len(data.removeprefix(b"data: ")) % 64 == 0


async def test_an_error_has_the_form_of_its_api() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield Text(text="a")
        error: ApiError = BadRequest("Wrong.", code="wrong")
        raise error

    assert await send_all(events()) == b'data: {"text":"a"}\n\nevent: error\ndata: "wrong"\n\n'


async def test_a_ping_has_the_form_of_its_api() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        await asyncio.sleep(0.2)
        yield Text(text="a")

    assert (await send_all(events(), ping_seconds=0.05)).startswith(PROTOCOL.ping)

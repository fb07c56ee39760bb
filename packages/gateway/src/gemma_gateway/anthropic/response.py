"""The response to a request of the Messages API: streamed, or complete.

A complete message is built from the events of the stream.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from pydantic_core import from_json, to_json

from gemma_gateway.anthropic.types import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageEvent,
    MessageStart,
    TextContent,
    TextDelta,
    ToolUseContent,
    Usage,
)
from gemma_gateway.errors import ApiError
from gemma_gateway.sse import NamedEvent, StreamProtocol

EventsOfMessage = AsyncGenerator[MessageEvent, None]
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def stream_protocol(path: str, request_id: str) -> StreamProtocol:
    """What the streams of this API have besides the events: they end with ``message_stop``."""
    return StreamProtocol(end=b"", ping=_PING, error=partial(_error_event, path, request_id))


def _error_event(path: str, request_id: str, error: ApiError) -> bytes:
    return b"event: error\ndata: %b\n\n" % to_json(error.body(path, request_id))


async def stream(events: EventsOfMessage) -> AsyncGenerator[NamedEvent, None]:
    """The events with their names."""
    async with aclosing(events):
        async for event in events:
            yield NamedEvent(event.type, event.__pydantic_serializer__.to_json(event))


async def complete(events: EventsOfMessage) -> Message:
    """The complete message: the events of the stream, joined."""
    joined = _MessageAccumulator()
    async with aclosing(events):
        async for event in events:
            joined.add(event)
    return joined.message()


class _MessageAccumulator:
    """Joins the events of a message."""

    def __init__(self) -> None:
        self._start: Message | None = None
        self._blocks: list[TextContent | ToolUseContent] = []
        self._pieces: list[str] = []
        self._end: MessageDelta | None = None

    def add(self, event: MessageEvent) -> None:
        """Takes in the next event."""
        match event:
            case MessageStart(message=message):
                self._start = message
            case ContentBlockStart(content_block=block):
                self._blocks.append(block)
                self._pieces = []
            case ContentBlockDelta(delta=TextDelta(text=piece)):
                self._pieces.append(piece)
            case ContentBlockDelta(delta=InputJsonDelta(partial_json=piece)):
                self._pieces.append(piece)
            case ContentBlockStop():
                self._blocks[-1] = _with_content(self._blocks[-1], "".join(self._pieces))
            case MessageDelta():
                self._end = event

    def message(self) -> Message:
        """The complete message."""
        assert self._start is not None, "an engine sends at least one chunk"
        assert self._end is not None, "an engine's last chunk of a choice has a finish_reason"
        usage = Usage(**dict(self._end.usage))
        return self._start.model_copy(
            update={"content": self._blocks, "usage": usage, **dict(self._end.delta)}
        )


def _with_content(block: TextContent | ToolUseContent, text: str) -> TextContent | ToolUseContent:
    if isinstance(block, TextContent):
        return TextContent(text=text)
    return block.model_copy(update={"input": _parsed(text)})


def _parsed(text: str) -> dict[str, Any]:
    """The input of a call. Of JSON that the end of the output has cut, what is complete."""
    try:
        value = from_json(text or "{}", allow_partial=True)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

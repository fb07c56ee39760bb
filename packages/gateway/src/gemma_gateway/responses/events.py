"""The engine's chunks as the events of a response.

A complete response is built from the stream: it is the response in the last event.
"""

import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseFailedEvent,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItem,
)

import gemma_wire as wire
from gemma_gateway.errors import ApiError
from gemma_gateway.generation import Chunks
from gemma_gateway.responses.form import ResponseForm
from gemma_gateway.responses.items import CustomCallItem, FunctionCallItem, ItemStatus, MessageItem, named
from gemma_gateway.sse import NamedEvent

ResponseEvents = AsyncGenerator[NamedEvent, None]


class ResponseStreamer:
    """Turns the engine's chunks into the events of one response.

    Tokens that add no text are reported together with the next text of the message.

    ``response`` is the complete response, once the last event is made.

    Args:
        form: of the response.
    """

    def __init__(self, form: ResponseForm) -> None:
        self._form = form
        self._number = itertools.count().__next__
        self._output: list[ResponseOutputItem] = []
        self._item: MessageItem | FunctionCallItem | None = None
        self._logprobs: tuple[wire.TokenLogprob, ...] = ()
        self._status: ItemStatus = "completed"
        self.response: Response | None = None

    def start(self) -> Iterator[NamedEvent]:
        """The first events."""
        begun = self._form.response("in_progress")
        yield named(
            ResponseCreatedEvent(type="response.created", response=begun, sequence_number=self._number())
        )
        yield named(
            ResponseInProgressEvent(
                type="response.in_progress", response=begun, sequence_number=self._number()
            )
        )

    def next(self, chunk: wire.Chunk) -> Iterator[NamedEvent]:
        """The events that a chunk makes."""
        self._logprobs += chunk.logprobs
        if chunk.text:
            yield from self._text(chunk.text)
        for call in chunk.tool_calls:
            yield from self._call(call)
        if chunk.finish_reason:
            yield from self._finish("incomplete" if chunk.finish_reason == "length" else "completed")
        if chunk.usage is not None:
            yield self._end(chunk.usage)

    def failed(self, error: ApiError) -> ResponseFailedEvent:
        """The last event of a response that an error ends."""
        output = [*self._output, *([self._item.item("incomplete")] if self._item else [])]
        self.response = self._form.response("failed", output, error=error)
        return ResponseFailedEvent(
            type="response.failed", response=self.response, sequence_number=self._number()
        )

    def _text(self, text: str) -> Iterator[NamedEvent]:
        if not isinstance(self._item, MessageItem):
            yield from self._open(MessageItem(self._next_index, self._number))
        assert isinstance(self._item, MessageItem)
        logprobs, self._logprobs = self._logprobs, ()
        yield self._item.add(text, logprobs)

    def _call(self, call: wire.ToolCallDelta) -> Iterator[NamedEvent]:
        """The first delta of a call has its id and name."""
        if call.id is not None:
            kind = CustomCallItem if call.custom else FunctionCallItem
            yield from self._open(kind(self._next_index, self._number, call))
        assert isinstance(self._item, FunctionCallItem), "the deltas of a call follow its first one"
        if call.arguments:
            yield self._item.add(call.arguments)

    @property
    def _next_index(self) -> int:
        return len(self._output) + (self._item is not None)

    def _open(self, item: MessageItem | FunctionCallItem) -> Iterator[NamedEvent]:
        yield from self._close("completed")
        self._item = item
        yield from item.start()

    def _close(self, status: ItemStatus) -> Iterator[NamedEvent]:
        if self._item is not None:
            yield from self._item.end(status)
            self._output.append(self._item.item(status))
            self._item = None

    def _finish(self, status: ItemStatus) -> Iterator[NamedEvent]:
        """Completes the last item. A response without text or calls has an empty message."""
        if not self._output and self._item is None:
            yield from self._open(MessageItem(0, self._number))
        if self._logprobs and isinstance(self._item, MessageItem):
            yield from self._text("")
        self._status = status
        yield from self._close(status)

    def _end(self, usage: wire.Usage) -> NamedEvent:
        self.response = self._form.response(self._status, self._output, usage)
        number = self._number()
        if self._status == "incomplete":
            return named(
                ResponseIncompleteEvent(
                    type="response.incomplete", response=self.response, sequence_number=number
                )
            )
        return named(
            ResponseCompletedEvent(type="response.completed", response=self.response, sequence_number=number)
        )


async def stream(streamer: ResponseStreamer, chunks: Chunks) -> ResponseEvents:
    """The events of a response. Nothing is yielded before the engine's first chunk."""
    started = False
    async with aclosing(chunks):
        async for chunk in chunks:
            if not started:
                started = True
                for event in streamer.start():
                    yield event
            for event in streamer.next(chunk):
                yield event


async def complete(streamer: ResponseStreamer, events: ResponseEvents) -> Response:
    """The complete response: that of the last event."""
    async with aclosing(events):
        async for _ in events:
            pass
    assert streamer.response is not None, "an engine's last chunk has the token counts"
    return streamer.response

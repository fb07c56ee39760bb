"""The engine's chunks as the events of a message."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import gemma_wire as wire
from gemma_gateway.anthropic.types import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    DeltaUsage,
    Ending,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    StopReason,
    TextContent,
    TextDelta,
    ToolUseContent,
    Usage,
)
from gemma_gateway.generation import Chunks

_STOP_REASONS: dict[wire.FinishReason, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}


class BlockStreamer:
    """Turns text and deltas of tool calls into blocks, one after the other."""

    def __init__(self) -> None:
        self._index = -1
        self._call: int | None = None
        """The number of the call that the current block is; ``None``: it is text."""
        self._open = False

    def next(self, chunk: wire.Chunk) -> Iterator[MessageEvent]:
        """The events that a chunk makes."""
        if chunk.text:
            if not self._open or self._call is not None:
                yield from self._start(TextContent(text=""), None)
            yield ContentBlockDelta(index=self._index, delta=TextDelta(text=chunk.text))
        for call in chunk.tool_calls:
            if call.id is not None:
                block = ToolUseContent(id=to_tool_use_id(call.id), name=call.name or "", input={})
                yield from self._start(block, call.index)
            assert call.index == self._call, "an engine completes a call before it begins the next"
            if call.arguments:
                yield ContentBlockDelta(index=self._index, delta=InputJsonDelta(partial_json=call.arguments))

    def stop(self) -> Iterator[MessageEvent]:
        """The end of the current block."""
        if self._open:
            yield ContentBlockStop(index=self._index)
        self._open = False

    def _start(self, block: TextContent | ToolUseContent, call: int | None) -> Iterator[MessageEvent]:
        yield from self.stop()
        self._index, self._call, self._open = self._index + 1, call, True
        yield ContentBlockStart(index=self._index, content_block=block)


async def message_events(message_id: str, model: str, chunks: Chunks) -> AsyncGenerator[MessageEvent, None]:
    """The events of a message. Nothing is yielded before the engine's first chunk."""
    blocks, started = BlockStreamer(), False
    async with aclosing(chunks):
        async for chunk in chunks:
            if not started:
                started = True
                yield MessageStart(message=_new_message(message_id, model, chunk))
            for event in blocks.next(chunk):
                yield event
            if chunk.finish_reason:
                for event in _ending(blocks, chunk, chunk.finish_reason):
                    yield event


def _ending(
    blocks: BlockStreamer, chunk: wire.Chunk, finish_reason: wire.FinishReason
) -> Iterator[MessageEvent]:
    assert chunk.usage is not None, "an engine's last chunk has the token counts"
    yield from blocks.stop()
    stopped = chunk.stop_string is not None
    reason: StopReason = "stop_sequence" if stopped else _STOP_REASONS[finish_reason]
    ending = Ending(stop_reason=reason, stop_sequence=chunk.stop_string)
    yield MessageDelta(delta=ending, usage=DeltaUsage(**_counts(chunk.usage)))
    yield MessageStop()


def _new_message(message_id: str, model: str, first: wire.Chunk) -> Message:
    """A message without content, with the token counts as far as they are reported."""
    known = first.choice_usage or first.usage or wire.Usage(prompt_tokens=0, completion_tokens=0)
    return Message(
        id=message_id,
        model=model,
        content=[],
        stop_reason=None,
        stop_sequence=None,
        usage=Usage(**_counts(known)),
    )


def _counts(usage: wire.Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def to_tool_use_id(call_id: str) -> str:
    """The id of a call with Anthropic's prefix."""
    return f"toolu_{call_id.removeprefix('call_')}"

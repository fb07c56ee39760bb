"""Messages and events as they are sent, named as in Anthropic's documentation."""

from typing import Any, Literal

from pydantic import BaseModel

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class DeltaUsage(BaseModel):
    """The number of tokens. Those of the prompt that were found in the prefix cache are counted apart."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int


class Usage(DeltaUsage):
    """The number of tokens of a message."""

    service_tier: Literal["standard"] = "standard"


class TextContent(BaseModel):
    """Text."""

    type: Literal["text"] = "text"
    text: str


class ToolUseContent(BaseModel):
    """A tool call."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


class Message(BaseModel):
    """A message of the model."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[TextContent | ToolUseContent]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage


class MessageTokensCount(BaseModel):
    """The number of tokens of a prompt."""

    input_tokens: int


class MessageStart(BaseModel):
    """The first event: a message without content."""

    type: Literal["message_start"] = "message_start"
    message: Message


class ContentBlockStart(BaseModel):
    """A block begins, without text or input."""

    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: TextContent | ToolUseContent


class TextDelta(BaseModel):
    """The next text of a block."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class InputJsonDelta(BaseModel):
    """The next part of the JSON of a call's input."""

    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


class ContentBlockDelta(BaseModel):
    """A block continues."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: TextDelta | InputJsonDelta


class ContentBlockStop(BaseModel):
    """A block ends."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class Ending(BaseModel):
    """Why the message ends."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(BaseModel):
    """The content is complete."""

    type: Literal["message_delta"] = "message_delta"
    delta: Ending
    usage: DeltaUsage


class MessageStop(BaseModel):
    """The last event."""

    type: Literal["message_stop"] = "message_stop"


MessageEvent = (
    MessageStart | ContentBlockStart | ContentBlockDelta | ContentBlockStop | MessageDelta | MessageStop
)

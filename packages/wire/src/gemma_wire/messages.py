"""A conversation, as typed values."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from gemma_wire.bounded import Bounded

MAX_MESSAGES: Final = 2048
"""Messages of one conversation; OpenAI's limit."""
MAX_PARTS: Final = 4096
"""Parts of content, and tool calls, in one conversation."""
MAX_TOOLS: Final = 128
"""Tools of one request."""


def check_parts(messages: Any) -> Any:
    """Counts the content parts and tool calls of a conversation that is not yet validated.

    Raises:
        PydanticCustomError: there are more than ``MAX_PARTS``.
    """
    objects = [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
    lists = [message.get(name) for message in objects for name in ("content", "tool_calls")]
    count = sum(len(parts) for parts in lists if isinstance(parts, list))
    if count > MAX_PARTS:
        counts = {"count": f"{count:,}", "limit": f"{MAX_PARTS:,}"}
        raise PydanticCustomError(
            "too_many_parts", "has {count} parts of content and tool calls; {limit} are allowed", counts
        )
    return messages


class WireModel(Bounded):
    """Base of all types in a request: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class TextPart(WireModel):
    """Text in a message."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(WireModel):
    """The position of the next entry of ``images``."""

    type: Literal["image"] = "image"


class AudioPart(WireModel):
    """The position of the next entry of ``audio``."""

    type: Literal["audio"] = "audio"


Part = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class CustomInput(WireModel):
    """The input of a custom tool.

    Args:
        syntax: of ``definition``; ``text``: any text.
        definition: a grammar in Lark's notation, or a regular expression, for the complete input.
    """

    syntax: Literal["text", "lark", "regex"] = "text"
    definition: str = ""


class Tool(WireModel):
    """A function or a custom tool that the model may call.

    Args:
        parameters: JSON schema of a function's arguments, an object; ``None``: it has no arguments.
        strict: refuse a schema that cannot be enforced completely.
        custom: the input of a custom tool, which is text; ``None``: it is a function.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: StrictBool = False
    custom: CustomInput | None = None


class ToolCall(WireModel):
    """A tool call that the model made in an earlier turn.

    Args:
        arguments: JSON as the model wrote it, or the input of a custom tool.
        custom: whether it is a custom tool.
    """

    id: str
    name: str
    arguments: str
    custom: StrictBool = False


class Message(WireModel):
    """One turn of a conversation.

    Args:
        content: may be empty if there are ``tool_calls``.
        name: of the participant, if several have the same role.
        tool_calls: only of the role ``assistant``.
        tool_call_id: only of the role ``tool``: the call whose result this is.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | Annotated[tuple[Part, ...], Field(min_length=1)] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls are not allowed with the role {self.role!r}")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("tool_call_id is required with the role 'tool', and not allowed with others")
        return self

    @property
    def size(self) -> int:
        """Approximate bytes of JSON."""
        if isinstance(self.content, str):
            return len(self.content) + 64
        return sum(len(part.text) + 32 if isinstance(part, TextPart) else 32 for part in self.content) + 64

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, also if it was given as text."""
        return (TextPart(text=self.content),) if isinstance(self.content, str) else self.content

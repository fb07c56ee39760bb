"""A conversation, as typed values."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from gemma_wire.bounded import Bounded

MAX_MESSAGES: Final = 2048
"""Messages of one conversation; as many as OpenAI takes."""
MAX_PARTS: Final = 4096
"""Parts of content, and tool calls, in one conversation."""
MAX_TOOLS: Final = 128
"""Tools of one request."""


def check_parts(messages: Any) -> Any:
    """A conversation that is not validated yet; its parts of content and tool calls are counted.

    Raises:
        PydanticCustomError: there are more than ``MAX_PARTS``.
    """
    said = (
        [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    )
    lists = [message.get(name) for message in said for name in ("content", "tool_calls")]
    count = sum(len(parts) for parts in lists if isinstance(parts, list))
    if count > MAX_PARTS:
        told = {"count": f"{count:,}", "limit": f"{MAX_PARTS:,}"}
        raise PydanticCustomError(
            "too_many_parts", "has {count} parts of content and tool calls; {limit} are allowed", told
        )
    return messages


class Frozen(Bounded):
    """Immutable, and nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class TextPart(Frozen):
    """A piece of text in a message."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(Frozen):
    """The place of the next entry of ``images``."""

    type: Literal["image"] = "image"


class AudioPart(Frozen):
    """The place of the next entry of ``audio``."""

    type: Literal["audio"] = "audio"


Part = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class Tool(Frozen):
    """A function that the model may call.

    Args:
        parameters: JSON schema of its arguments, an object; ``None`` takes none.
        strict: the arguments of a call must fit the schema, whatever the model would like.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: StrictBool = False


class ToolCall(Frozen):
    """A call that the model made in an earlier turn; ``arguments`` is the JSON as it wrote it."""

    id: str
    name: str
    arguments: str


class Message(Frozen):
    """One turn of a conversation.

    Args:
        content: what was said; may be empty beside ``tool_calls``.
        name: who spoke, where several have the same role.
        tool_calls: an assistant's.
        tool_call_id: of the call that a tool's message is the result of.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | Annotated[tuple[Part, ...], Field(min_length=1)] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls do not belong to the role {self.role!r}")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("tool_call_id belongs to the role 'tool', which needs it")
        return self

    @property
    def size(self) -> int:
        """Bytes of JSON, about."""
        if isinstance(self.content, str):
            return len(self.content) + 64
        return sum(len(part.text) + 32 if isinstance(part, TextPart) else 32 for part in self.content) + 64

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, whichever way it was given."""
        return (TextPart(text=self.content),) if isinstance(self.content, str) else self.content

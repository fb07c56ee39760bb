"""A conversation, as typed values."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator


class Frozen(BaseModel):
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
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, whichever way it was given."""
        return (TextPart(text=self.content),) if isinstance(self.content, str) else self.content

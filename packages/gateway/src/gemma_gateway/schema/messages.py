"""The messages of a conversation: roles and content parts."""

from typing import Annotated, Any, Literal, Never

from pydantic import BeforeValidator, ConfigDict, Field, Tag

from gemma_gateway.schema.strict_model import (
    Ignored,
    StrictModel,
    Unsupported,
    conflict,
    null_as_text,
    tagged_by,
    text_or_parts,
)
from gemma_wire.messages import MAX_MESSAGES, check_parts


class LenientModel(StrictModel):
    """Ignores unknown fields: a history may contain what other servers added to it."""

    model_config = ConfigDict(extra="ignore")


def _as_url(value: object) -> object:
    """Many clients send a plain URL where OpenAI's specification has an object that contains it."""
    return {"url": value} if isinstance(value, str) else value


_PART_TYPES = {
    "input_text": "text",
    "output_text": "text",
    "input_image": "image_url",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
}
"""Other names of part types → ours: those of the Responses API, and of other models' histories."""


def _normalized_type(part: object) -> object:
    if not isinstance(part, dict) or not isinstance(kind := part.get("type"), str):
        return part
    return {**part, "type": _PART_TYPES.get(kind, kind)}


AnyText = Annotated[str, null_as_text()]


class TextContentPart(LenientModel):
    """Text."""

    type: Literal["text"]
    text: AnyText


class RefusalContentPart(LenientModel):
    """A refusal in an earlier turn. The model sees it as its own text."""

    type: Literal["refusal"]
    refusal: AnyText


class ReasoningContentPart(LenientModel):
    """A model's reasoning in an earlier turn. It is omitted from the prompt, as in chat templates."""

    type: Literal["reasoning"]


class ImageUrl(LenientModel):
    """The URL of an image."""

    url: str
    detail: Annotated[Any, Ignored("the model has one image resolution")] = "auto"


class ImageContentPart(LenientModel):
    """An image."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_as_url)] = Field(
        description="an object with the `url`, or the URL itself"
    )


class InputAudio(LenientModel):
    """An audio file in base64."""

    data: str
    format: Annotated[Any, Ignored("the format is detected from the content")] = ""


class AudioContentPart(LenientModel):
    """Audio."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrl(LenientModel):
    """The URL of an audio file."""

    url: str = Field(description="a data URL, or an http(s) URL as for images")


class AudioUrlContentPart(LenientModel):
    """Audio by URL, named as in vLLM."""

    type: Literal["audio_url"]
    audio_url: Annotated[AudioUrl, BeforeValidator(_as_url)] = Field(
        description="an object with the `url`, or the URL itself"
    )


class File(LenientModel):
    """An attached file; only images are supported."""

    file_id: Annotated[None, Unsupported(hint="files are not stored; send the image as 'file_data'")] = None
    file_data: str = Field(description="a data URL of an image")
    filename: Annotated[str, Ignored("the format is detected from the content")] = ""


class FileContentPart(LenientModel):
    """An image that is attached as a file."""

    type: Literal["file"]
    file: File


UserPart = Annotated[
    Annotated[TextContentPart, Tag("<text>")]
    | Annotated[ImageContentPart, Tag("<image_url>")]
    | Annotated[AudioContentPart, Tag("<input_audio>")]
    | Annotated[AudioUrlContentPart, Tag("<audio_url>")]
    | Annotated[FileContentPart, Tag("<file>")],
    tagged_by("type", "text", "image_url", "input_audio", "audio_url", "file"),
    BeforeValidator(_normalized_type),
]
AssistantPart = Annotated[
    Annotated[TextContentPart, Tag("<text>")]
    | Annotated[RefusalContentPart, Tag("<refusal>")]
    | Annotated[
        ReasoningContentPart, Ignored("earlier reasoning is omitted from the prompt"), Tag("<reasoning>")
    ],
    tagged_by("type", "text", "refusal"),
    BeforeValidator(_normalized_type),
]
SystemPart = Annotated[TextContentPart, BeforeValidator(_normalized_type)]
TextContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[SystemPart], Tag("<array>")],
    text_or_parts(),
    null_as_text(),
]
UserContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[UserPart], Tag("<array>")],
    text_or_parts(),
    null_as_text(),
]
AssistantContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[AssistantPart], Tag("<array>")],
    text_or_parts(),
]


class SystemMessage(LenientModel):
    """Instructions. ``developer`` is the newer name of ``system``."""

    role: Literal["system", "developer"]
    content: TextContent
    name: str = ""


class UserMessage(LenientModel):
    """The user's text, images and audio."""

    role: Literal["user"]
    content: UserContent
    name: str = ""


class CalledFunction(LenientModel):
    """The function that the model called; ``arguments`` is JSON as the model wrote it."""

    name: str
    arguments: AnyText


class MessageToolCall(LenientModel):
    """A tool call that the model made in an earlier turn; the API form of ``gemma_wire.ToolCall``."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class CalledCustomTool(LenientModel):
    """The custom tool that the model called, with its input."""

    name: str
    input: AnyText


class CustomToolCall(LenientModel):
    """A call of a custom tool that the model made in an earlier turn."""

    id: str
    type: Literal["custom"]
    custom: CalledCustomTool


AnyToolCall = Annotated[
    Annotated[MessageToolCall, Tag("<function>")] | Annotated[CustomToolCall, Tag("<custom>")],
    tagged_by("type", "function", "custom"),
]


class AssistantMessage(LenientModel):
    """An earlier turn of the model. The ``message`` of a response is valid here unchanged."""

    role: Literal["assistant"]
    content: AssistantContent = ""
    refusal: str | None = None
    name: str = ""
    tool_calls: list[AnyToolCall] | None = None
    audio: Annotated[None, Unsupported(hint="the model does not generate audio")] = None
    function_call: Annotated[None, Unsupported(hint="use 'tool_calls'")] = None


class ToolMessage(LenientModel):
    """The result of a tool call."""

    role: Literal["tool"]
    content: UserContent
    tool_call_id: str
    name: Annotated[str, Ignored("the function's name is taken from the call")] = ""


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[SystemMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")]
    | Annotated[Never, Unsupported(hint="use the role 'tool'"), Tag("<function>")],
    tagged_by("role", "system", "developer", "user", "assistant", "tool"),
]

ChatMessages = Annotated[
    list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES), BeforeValidator(check_parts)
]


def check_calls(messages: list[ChatMessage]) -> None:
    """Checks that the results of all calls follow them before any other message, and match a call.

    Raises:
        PydanticCustomError: names the first message that violates this.
    """
    open_ids: set[str] = set()
    called_in = 0
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_ids:
                raise conflict(
                    f"messages[{index}].tool_call_id", "does not match a tool call that still needs a result"
                )
            open_ids.remove(message.tool_call_id)
            continue
        _check_all_answered(open_ids, called_in)
        if isinstance(message, AssistantMessage):
            open_ids, called_in = {call.id for call in message.tool_calls or ()}, index
    _check_all_answered(open_ids, called_in)


def _check_all_answered(open_ids: set[str], called_in: int) -> None:
    if open_ids:
        missing = ", ".join(sorted(open_ids))[:200]
        reason = f"must be followed by a message of the role 'tool' for each call; missing: {missing}"
        raise conflict(f"messages[{called_in}].tool_calls", reason)

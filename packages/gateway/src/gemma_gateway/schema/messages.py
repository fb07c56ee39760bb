"""The messages of a conversation: roles, and the parts that a message may consist of."""

from typing import Annotated, Any, Literal, Never

from pydantic import BeforeValidator, ConfigDict, Field, Tag

from gemma_gateway.schema.base import NoEffect, Only, Strict, clash, null_as_text, tagged_by, text_or_parts
from gemma_wire.messages import MAX_MESSAGES, check_parts


class History(Strict):
    """What other servers wrote, or wrote down: fields that are unknown here are ignored."""

    model_config = ConfigDict(extra="ignore")


def _as_url(value: object) -> object:
    """Many clients give a URL where OpenAI's document has an object that holds one."""
    return {"url": value} if isinstance(value, str) else value


_PART_TYPES = {
    "input_text": "text",
    "output_text": "text",
    "input_image": "image_url",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
}
"""Other names of the types of parts: those of the Responses API, and of other models' histories."""


def _with_our_type(part: object) -> object:
    if not isinstance(part, dict) or not isinstance(kind := part.get("type"), str):
        return part
    return {**part, "type": _PART_TYPES.get(kind, kind)}


AnyText = Annotated[str, null_as_text()]


class TextPart(History):
    """A piece of text."""

    type: Literal["text"]
    text: AnyText


class RefusalPart(History):
    """What the model said instead of an answer; to the model it is text of its own."""

    type: Literal["refusal"]
    refusal: AnyText


class ReasoningPart(History):
    """What a model thought before it answered. Chat templates leave it out of the prompt, and so do we."""

    type: Literal["reasoning"]


class ImageUrl(History):
    """Where an image is."""

    url: str
    detail: Annotated[Any, NoEffect("every image is seen at the model's one resolution")] = "auto"


class ImagePart(History):
    """An image."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_as_url)] = Field(
        description="an object with the `url`, or the URL itself"
    )


class InputAudio(History):
    """Audio: the base64 of a file."""

    data: str
    format: Annotated[Any, NoEffect("the content tells what the file is")] = ""


class AudioPart(History):
    """Audio."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrl(History):
    """Where audio is."""

    url: str = Field(description="a data URL, or an http(s) URL as for images")


class AudioUrlPart(History):
    """Audio, by its URL; vLLM's name."""

    type: Literal["audio_url"]
    audio_url: Annotated[AudioUrl, BeforeValidator(_as_url)] = Field(
        description="an object with the `url`, or the URL itself"
    )


class File(History):
    """A file that is sent along; only images are understood."""

    file_id: Annotated[None, Only(hint="no files are stored here; send the image itself as 'file_data'")] = (
        None
    )
    file_data: str = Field(description="a data URL of an image")
    filename: Annotated[str, NoEffect("the content tells what the file is")] = ""


class FilePart(History):
    """An image, sent as a file."""

    type: Literal["file"]
    file: File


UserPart = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<image_url>")]
    | Annotated[AudioPart, Tag("<input_audio>")]
    | Annotated[AudioUrlPart, Tag("<audio_url>")]
    | Annotated[FilePart, Tag("<file>")],
    tagged_by("type", "text", "image_url", "input_audio", "audio_url", "file"),
    BeforeValidator(_with_our_type),
]
AssistantPart = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[RefusalPart, Tag("<refusal>")]
    | Annotated[ReasoningPart, NoEffect("the model is not shown earlier reasoning"), Tag("<reasoning>")],
    tagged_by("type", "text", "refusal"),
    BeforeValidator(_with_our_type),
]
SystemPart = Annotated[TextPart, BeforeValidator(_with_our_type)]
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


class SystemMessage(History):
    """Instructions. ``developer`` is the newer name of ``system``."""

    role: Literal["system", "developer"]
    content: TextContent
    name: str = ""


class UserMessage(History):
    """What the user said and showed."""

    role: Literal["user"]
    content: UserContent
    name: str = ""


class CalledFunction(History):
    """Which function the model called, and with what; ``arguments`` is JSON as the model wrote it."""

    name: str
    arguments: AnyText


class ToolCall(History):
    """A call that the model made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


AnyToolCall = Annotated[
    Annotated[ToolCall, Tag("<function>")]
    | Annotated[Never, Only(hint="the tools of this server are functions"), Tag("<custom>")],
    tagged_by("type", "function"),
]


class AssistantMessage(History):
    """What the model said before; an answer's own ``message`` fits here as it is."""

    role: Literal["assistant"]
    content: AssistantContent = ""
    refusal: str | None = None
    name: str = ""
    tool_calls: list[AnyToolCall] | None = None
    audio: Annotated[None, Only(hint="the model does not speak")] = None
    function_call: Annotated[None, Only(hint="use 'tool_calls'")] = None


class ToolMessage(History):
    """What a call gave."""

    role: Literal["tool"]
    content: UserContent
    tool_call_id: str
    name: Annotated[str, NoEffect("the call tells the function's name")] = ""


Message = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[SystemMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")]
    | Annotated[Never, Only(hint="use the role 'tool'"), Tag("<function>")],
    tagged_by("role", "system", "developer", "user", "assistant", "tool"),
]

Conversation = Annotated[
    list[Message], Field(min_length=1, max_length=MAX_MESSAGES), BeforeValidator(check_parts)
]


def check_calls(messages: list[Message]) -> None:
    """Every call is followed by its result before anybody else speaks, and every result has its call.

    Raises:
        PydanticCustomError: naming the first message that does not fit.
    """
    open_ids: set[str] = set()
    made_in = 0
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_ids:
                raise clash(f"messages[{index}].tool_call_id", "is of no call that still waits for a result")
            open_ids.remove(message.tool_call_id)
            continue
        _all_answered(open_ids, made_in)
        if isinstance(message, AssistantMessage):
            open_ids, made_in = {call.id for call in message.tool_calls or ()}, index
    _all_answered(open_ids, made_in)


def _all_answered(open_ids: set[str], made_in: int) -> None:
    if open_ids:
        missing = ", ".join(sorted(open_ids))[:200]
        reason = f"must be followed by a message of the role 'tool' for each call; missing: {missing}"
        raise clash(f"messages[{made_in}].tool_calls", reason)

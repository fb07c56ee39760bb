"""The messages of a conversation: roles, and the parts that a message may consist of."""

from typing import Annotated, Literal, Never, Self

from pydantic import Field, Tag, model_validator

from gemma_gateway.schema.base import NoEffect, Only, Strict, clash, tagged_by, text_or_parts


class TextPart(Strict):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(Strict):
    """What the model said instead of an answer; to the model it is text of its own."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Strict):
    """Where a picture is."""

    url: str
    detail: Annotated[
        Literal["auto", "low", "high", "original"],
        NoEffect("every picture is seen at the model's one resolution"),
    ] = "auto"


class ImagePart(Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(Strict):
    """A sound: the base64 of a file."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Strict):
    """A sound."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class File(Strict):
    """A file that is sent along; only pictures are understood."""

    file_id: Annotated[
        None, Only(None, hint="no files are stored here; send the picture itself as 'file_data'")
    ] = None
    file_data: str = Field(description="a data URI of a picture")
    filename: Annotated[str, NoEffect("the content tells what the file is")] = ""


class FilePart(Strict):
    """A picture, sent as a file."""

    type: Literal["file"]
    file: File


UserPart = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<image_url>")]
    | Annotated[AudioPart, Tag("<input_audio>")]
    | Annotated[FilePart, Tag("<file>")],
    tagged_by("type", "text", "image_url", "input_audio", "file"),
]
AssistantPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
    tagged_by("type", "text", "refusal"),
]
TextContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[TextPart], Field(min_length=1), Tag("<array>")],
    text_or_parts(),
]
UserContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[UserPart], Field(min_length=1), Tag("<array>")],
    text_or_parts(),
]
AssistantContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[AssistantPart], Field(min_length=1), Tag("<array>")],
    text_or_parts(),
]


class SystemMessage(Strict):
    """Instructions. ``developer`` is the newer name of ``system``."""

    role: Literal["system", "developer"]
    content: TextContent
    name: str = ""


class UserMessage(Strict):
    """What the user said and showed."""

    role: Literal["user"]
    content: UserContent
    name: str = ""


class CalledFunction(Strict):
    """Which function the model called, and with what; ``arguments`` is JSON as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call that the model made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


AnyToolCall = Annotated[
    Annotated[ToolCall, Tag("<function>")]
    | Annotated[Never, Only(hint="the tools of this server are functions"), Tag("<custom>")],
    tagged_by("type", "function"),
]


class AssistantMessage(Strict):
    """What the model said before; an answer's own ``message`` fits here as it is."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: str | None = None
    name: str = ""
    tool_calls: list[AnyToolCall] | None = None
    audio: Annotated[None, Only(None, hint="the model does not speak")] = None
    function_call: Annotated[None, Only(None, hint="use 'tool_calls'")] = None
    annotations: Annotated[object, Only(None, [])] = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.refusal is None and not self.tool_calls:
            sentence = "is needed where the assistant made no tool calls"
            given = "content" in self.model_fields_set
            raise clash("content", sentence, "invalid_type" if given else "missing_required_parameter")
        return self


class ToolMessage(Strict):
    """What a call gave."""

    role: Literal["tool"]
    content: TextContent
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

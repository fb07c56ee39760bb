"""The input of ``/v1/responses``: messages, calls of tools, and their results."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Never, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from gemma_gateway.schema.messages import AnyText, InputAudio, LenientModel
from gemma_gateway.schema.strict_model import (
    Ignored,
    Unsupported,
    conflict,
    null_as_text,
    one_of,
    tag_of,
    tagged_by,
    text_or_parts,
)
from gemma_wire.messages import MAX_MESSAGES, check_parts

_NO_FILES = Unsupported(hint="files are not stored; send the content itself")
_NO_RESOLUTIONS = Ignored("the model has one image resolution")
_NOT_SHOWN = Ignored("the model does not see it")
_HOSTED = Ignored("a call that OpenAI ran is omitted from the prompt; the model's answer follows it")
_FUNCTIONS_ONLY = Unsupported(hint="the tools of this server are functions")
_PART_TYPES: Final = {"text": "input_text", "image_url": "input_image", "file": "input_file"}
_REPLY_TYPES: Final = {"text": "output_text"}
"""Names of part types in chat completions → those of the Responses API."""


def _plain_url(value: object) -> object:
    """Chat completions have an object that contains the URL."""
    return value["url"] if isinstance(value, dict) and "url" in value else value


class InputText(LenientModel):
    """Text."""

    type: Literal["input_text"]
    text: AnyText


class InputImage(LenientModel):
    """An image."""

    type: Literal["input_image"]
    file_id: Annotated[None, _NO_FILES] = None
    image_url: Annotated[str, BeforeValidator(_plain_url)] = Field(
        description="a data URL, or an http(s) URL"
    )
    detail: Annotated[Any, _NO_RESOLUTIONS] = "auto"


class InputFile(LenientModel):
    """An attached file; only images are supported."""

    type: Literal["input_file"]
    file_id: Annotated[None, _NO_FILES] = None
    file_data: str | None = Field(None, description="a data URL of an image")
    file_url: str | None = Field(None, description="an http(s) URL of an image")
    filename: Annotated[Any, Ignored("the format is detected from the content")] = ""
    detail: Annotated[Any, _NO_RESOLUTIONS] = "auto"

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.file_data is None) == (self.file_url is None):
            raise conflict("file_data", "and 'file_url': give exactly one of them")
        return self

    @property
    def source(self) -> tuple[str, str]:
        """The parameter that has the file, and its value."""
        return (
            ("file_data", self.file_data) if self.file_data is not None else ("file_url", self.file_url or "")
        )


class InputAudioPart(LenientModel):
    """Audio."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class OutputText(LenientModel):
    """Text that the model generated in an earlier turn."""

    type: Literal["output_text"]
    text: AnyText
    annotations: Annotated[Any, _NOT_SHOWN] = None
    logprobs: Annotated[Any, _NOT_SHOWN] = None


class Refusal(LenientModel):
    """A refusal in an earlier turn. The model sees it as its own text."""

    type: Literal["refusal"]
    refusal: AnyText


InputContentPart = InputText | InputImage | InputFile | InputAudioPart
ItemPart = InputContentPart | OutputText | Refusal


def _renamed(types: Mapping[str, str]) -> BeforeValidator:
    """Accepts other names of part types."""

    def rename(part: object) -> object:
        if not isinstance(part, dict) or not isinstance(kind := part.get("type"), str):
            return part
        return {**part, "type": types.get(kind, kind)}

    return BeforeValidator(rename)


InputPart = Annotated[
    Annotated[InputText, Tag("<input_text>")]
    | Annotated[InputImage, Tag("<input_image>")]
    | Annotated[InputFile, Tag("<input_file>")]
    | Annotated[InputAudioPart, Tag("<input_audio>")],
    tagged_by("type", "input_text", "input_image", "input_file", "input_audio"),
    _renamed(_PART_TYPES),
]
ReplyPart = Annotated[
    Annotated[OutputText, Tag("<output_text>")]
    | Annotated[Refusal, Tag("<refusal>")]
    | Annotated[InputText, Tag("<input_text>")]
    | Annotated[InputImage, Tag("<input_image>")]
    | Annotated[InputFile, Tag("<input_file>")],
    tagged_by("type", "output_text", "refusal", "input_text", "input_image", "input_file"),
    _renamed(_REPLY_TYPES),
]
InputParts = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[InputPart], Tag("<array>")],
    text_or_parts(),
    null_as_text(),
]
ReplyParts = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[ReplyPart], Tag("<array>")],
    text_or_parts(),
    null_as_text(),
]


class InputMessage(LenientModel):
    """The user's message, or instructions. ``developer`` is the newer name of ``system``."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    content: InputParts
    status: Annotated[Any, _NOT_SHOWN] = None
    phase: Annotated[Any, _NOT_SHOWN] = None


class ReplyMessage(LenientModel):
    """An earlier message of the model. The ``output`` of a response is valid here unchanged."""

    type: Literal["message"] = "message"
    role: Literal["assistant"]
    content: ReplyParts
    id: Annotated[Any, _NOT_SHOWN] = None
    status: Annotated[Any, _NOT_SHOWN] = None
    phase: Annotated[Any, _NOT_SHOWN] = None


class FunctionCall(LenientModel):
    """A call that the model made in an earlier turn; ``arguments`` is JSON as the model wrote it."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: AnyText
    id: Annotated[Any, _NOT_SHOWN] = None
    status: Annotated[Any, _NOT_SHOWN] = None
    namespace: Annotated[Any, _NOT_SHOWN] = None


class CustomToolCallItem(LenientModel):
    """A call of a custom tool that the model made in an earlier turn."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: AnyText
    id: Annotated[Any, _NOT_SHOWN] = None
    namespace: Annotated[Any, _NOT_SHOWN] = None


class FunctionCallOutput(LenientModel):
    """The result of a call."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: InputParts
    id: Annotated[Any, _NOT_SHOWN] = None
    status: Annotated[Any, _NOT_SHOWN] = None


class OmittedItem(LenientModel):
    """An item that is not in the prompt."""

    type: str


class ItemReference(LenientModel):
    """An item of a stored response."""

    type: Literal["item_reference"] = "item_reference"
    id: str = Field(description="needs stored responses")


InputItem = (
    InputMessage
    | ReplyMessage
    | FunctionCall
    | CustomToolCallItem
    | FunctionCallOutput
    | OmittedItem
    | ItemReference
)


def _kind_of_item(value: Any) -> str | None:
    """The tag of an item; the type of messages and references may be left out."""
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    if kind is None:
        return "<item_reference>" if "role" not in value and "id" in value else "<message>"
    return tag_of(kind)


_SUPPORTED: Final = (
    "'message', 'function_call', 'function_call_output', 'custom_tool_call', 'custom_tool_call_output', "
    "'reasoning', 'item_reference'"
)
AnyItem = Annotated[
    Annotated[
        Annotated[InputMessage, Tag("<user>")]
        | Annotated[InputMessage, Tag("<system>")]
        | Annotated[InputMessage, Tag("<developer>")]
        | Annotated[ReplyMessage, Tag("<assistant>")],
        tagged_by("role", "user", "system", "developer", "assistant"),
        Tag("<message>"),
    ]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[CustomToolCallItem, Tag("<custom_tool_call>")]
    | Annotated[FunctionCallOutput, Tag("<custom_tool_call_output>")]
    | Annotated[ItemReference, Tag("<item_reference>")]
    | Annotated[OmittedItem, Ignored("earlier reasoning is omitted from the prompt"), Tag("<reasoning>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<web_search_call>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<file_search_call>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<code_interpreter_call>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<image_generation_call>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<mcp_list_tools>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<mcp_call>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<mcp_approval_request>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<mcp_approval_response>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<tool_search_call>")]
    | Annotated[OmittedItem, _HOSTED, Tag("<tool_search_output>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<computer_call>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<computer_call_output>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<local_shell_call>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<local_shell_call_output>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<shell_call>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<shell_call_output>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<apply_patch_call>")]
    | Annotated[Never, _FUNCTIONS_ONLY, Tag("<apply_patch_call_output>")]
    | Annotated[Never, Unsupported(hint="it can only be read by OpenAI"), Tag("<compaction>")]
    | Annotated[Never, Unsupported(hint="nothing is compacted"), Tag("<compaction_trigger>")],
    Discriminator(_kind_of_item, "unknown_type", _SUPPORTED),
]


def _check_parts(items: Any) -> Any:
    """Counts the content parts of all items before they are validated."""
    if isinstance(items, list):
        objects = [item for item in items if isinstance(item, dict)]
        check_parts([{"content": each.get("content"), "tool_calls": each.get("output")} for each in objects])
    return items


AnyInput = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[
        list[AnyItem],
        Field(min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(_check_parts),
        Tag("<array>"),
    ],
    one_of({str: "<string>", list: "<array>"}, "a string or an array of items"),
]

"""The content blocks of messages in Anthropic's form."""

from typing import Annotated, Any, Literal, Never

from pydantic import BeforeValidator, Field, Tag

from gemma_gateway.schema.messages import AnyText, LenientModel
from gemma_gateway.schema.strict_model import (
    Ignored,
    Unsupported,
    null_as_text,
    tagged_by,
    text_or_parts,
)

CACHE_CONTROL = Ignored("the prefix cache is always used")
_FORMAT = Ignored("the format is detected from the content")
_CITATIONS = Ignored("the model does not cite")
_SERVER_TOOLS = Ignored("calls and results of tools that Anthropic runs are omitted from the prompt")
_STORED = Unsupported(hint="files are not stored; send the content")
_BLOCK_TYPES = {
    "redacted_thinking": "thinking",
    **dict.fromkeys(
        (
            "web_search_tool_result",
            "web_fetch_tool_result",
            "code_execution_tool_result",
            "bash_code_execution_tool_result",
            "text_editor_code_execution_tool_result",
            "tool_search_tool_result",
            "advisor_tool_result",
            "mcp_tool_use",
            "mcp_tool_result",
            "mcp_tool_listing",
            "tool_addition",
            "tool_removal",
            "tool_reference",
            "browser_state",
            "fallback",
        ),
        "server_tool_use",
    ),
}
"""Types of blocks that are treated as another type."""


def _normalized_type(block: object) -> object:
    if not isinstance(block, dict) or not isinstance(kind := block.get("type"), str):
        return block
    return {**block, "type": _BLOCK_TYPES.get(kind, kind)}


class Block(LenientModel):
    """What all blocks have in common."""

    cache_control: Annotated[Any, CACHE_CONTROL] = None


class TextBlock(Block):
    """Text."""

    type: Literal["text"]
    text: AnyText
    citations: Annotated[Any, _CITATIONS] = None


class Base64Source(LenientModel):
    """A file in base64."""

    type: Literal["base64"]
    media_type: Annotated[Any, _FORMAT] = None
    data: str


class UrlSource(LenientModel):
    """A file by URL."""

    type: Literal["url"]
    url: str = Field(description="an http(s) URL of an allowed host, or a data URL")


ImageSource = Annotated[
    Annotated[Base64Source, Tag("<base64>")]
    | Annotated[UrlSource, Tag("<url>")]
    | Annotated[Never, _STORED, Tag("<file>")],
    tagged_by("type", "base64", "url"),
]


class ImageBlock(Block):
    """An image."""

    type: Literal["image"]
    source: ImageSource
    transformations: Annotated[Any, Ignored("the model has one image resolution")] = None


class TextSource(LenientModel):
    """A document as plain text."""

    type: Literal["text"]
    media_type: Annotated[Any, Ignored("a document is plain text")] = None
    data: AnyText


ContentPart = Annotated[
    Annotated[TextBlock, Tag("<text>")] | Annotated[ImageBlock, Tag("<image>")],
    tagged_by("type", "text", "image"),
]


class ContentSource(LenientModel):
    """A document as text and images."""

    type: Literal["content"]
    content: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[ContentPart], Tag("<array>")],
        text_or_parts(),
        null_as_text(),
    ]


_PDF = Unsupported(hint="PDF is not supported; send its text or images of its pages")
DocumentSource = Annotated[
    Annotated[TextSource, Tag("<text>")]
    | Annotated[ContentSource, Tag("<content>")]
    | Annotated[Never, _PDF, Tag("<base64>")]
    | Annotated[Never, _PDF, Tag("<url>")]
    | Annotated[Never, _STORED, Tag("<file>")],
    tagged_by("type", "text", "content"),
]


class DocumentBlock(Block):
    """A document. The model sees its title, its context and its content, separated by line breaks."""

    type: Literal["document"]
    source: DocumentSource
    title: str = ""
    context: str = ""
    citations: Annotated[Any, _CITATIONS] = None


class SearchResultBlock(Block):
    """A search result. The model sees its title, its source and its content, separated by line breaks."""

    type: Literal["search_result"]
    title: str = ""
    source: str = ""
    content: list[TextBlock] = Field([])
    citations: Annotated[Any, _CITATIONS] = None


class ThinkingBlock(LenientModel):
    """A model's thinking in an earlier turn, or ``redacted_thinking``."""

    type: Literal["thinking"]


class ServerToolBlock(LenientModel):
    """A call or result of a tool that Anthropic runs, in an earlier turn."""

    type: Literal["server_tool_use"]


class CompactionBlock(Block):
    """The summary of earlier turns."""

    type: Literal["compaction"]
    content: AnyText = ""


class ToolUseBlock(Block):
    """A tool call that the model made in an earlier turn."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: Annotated[Any, Ignored("the model makes all calls")] = None


_Document = Annotated[DocumentBlock, Tag("<document>")]
_SearchResult = Annotated[SearchResultBlock, Tag("<search_result>")]
_ServerTool = Annotated[ServerToolBlock, _SERVER_TOOLS, Tag("<server_tool_use>")]
_Text = Annotated[TextBlock, Tag("<text>")]
_Image = Annotated[ImageBlock, Tag("<image>")]
ResultPart = Annotated[
    _Text | _Image | _Document | _SearchResult | _ServerTool,
    tagged_by("type", "text", "image", "document", "search_result"),
    BeforeValidator(_normalized_type),
]


class ToolResultBlock(Block):
    """The result of a tool call."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[ResultPart], Tag("<array>")],
        text_or_parts(),
        null_as_text(),
    ] = ""
    is_error: bool | None = Field(None, description="true: the model sees `Error: ` before the content")


UserBlock = Annotated[
    _Text
    | _Image
    | _Document
    | _SearchResult
    | _ServerTool
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[Never, _STORED, Tag("<container_upload>")],
    tagged_by("type", "text", "image", "document", "search_result", "tool_result"),
    BeforeValidator(_normalized_type),
]
AssistantBlock = Annotated[
    _Text
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ThinkingBlock, Ignored("earlier thinking is omitted from the prompt"), Tag("<thinking>")]
    | Annotated[CompactionBlock, Tag("<compaction>")]
    | _ServerTool
    | Annotated[Never, _STORED, Tag("<container_upload>")],
    tagged_by("type", "text", "tool_use", "thinking", "redacted_thinking"),
    BeforeValidator(_normalized_type),
]
SystemBlock = Annotated[_Text | _ServerTool, tagged_by("type", "text"), BeforeValidator(_normalized_type)]
UserContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[UserBlock], Tag("<array>")],
    text_or_parts(),
    null_as_text(),
]
AssistantContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[AssistantBlock], Tag("<array>")],
    text_or_parts(),
    null_as_text(),
]
SystemContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[SystemBlock], Tag("<array>")],
    text_or_parts(),
    null_as_text(),
]

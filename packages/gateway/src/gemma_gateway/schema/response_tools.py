"""The tools and the text format of ``/v1/responses``."""

from typing import Annotated, Any, Final, Literal, Never

from pydantic import ConfigDict, Discriminator, Field, Tag

from gemma_gateway.schema.messages import LenientModel
from gemma_gateway.schema.strict_model import (
    Ignored,
    StrictModel,
    Unsupported,
    one_of,
    tag_of,
    tagged_by,
)
from gemma_gateway.schema.tools import (
    FunctionDefinition,
    FunctionName,
    GrammarDefinition,
    JsonObjectFormat,
    JsonSchema,
    Name,
    TextFormat,
    TextInput,
)
from gemma_wire.messages import MAX_TOOLS

_OMITTED = Ignored("omitted: only OpenAI can run it; `tools` of the response has the tools that were used")
_ONLY_FUNCTIONS = Unsupported(hint="the tools of this server are functions and custom tools")


class ResponseFunctionTool(FunctionDefinition):
    """A function tool."""

    type: Literal["function"]
    defer_loading: Annotated[Any, Ignored("every tool is in the prompt")] = None


class ResponseGrammarInput(GrammarDefinition):
    """Text that a grammar allows."""

    type: Literal["grammar"]


class ResponseCustomTool(StrictModel):
    """A custom tool, whose input is text."""

    type: Literal["custom"]
    name: Name
    description: str = ""
    format: Annotated[
        Annotated[TextInput, Tag("<text>")] | Annotated[ResponseGrammarInput, Tag("<grammar>")],
        tagged_by("type", "text", "grammar"),
    ] = TextInput(type="text")
    defer_loading: Annotated[Any, Ignored("every tool is in the prompt")] = None


UsedTool = ResponseFunctionTool | ResponseCustomTool
"""A tool that the model may call."""


class OmittedTool(LenientModel):
    """A tool that the model is not shown."""

    type: str


_USED: Final = ("function", "custom")
_OMITTED_TYPES: Final = (
    "namespace",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "file_search",
    "computer",
    "computer_use_preview",
    "mcp",
    "code_interpreter",
    "image_generation",
    "local_shell",
    "shell",
    "tool_search",
    "apply_patch",
)


def _kind_of_tool(value: Any) -> str | None:
    """The tag of a tool; types that are not known here are omitted, too."""
    if not isinstance(value, dict) or not isinstance(kind := value.get("type"), str):
        return None
    return tag_of(kind) if kind in (*_USED, *_OMITTED_TYPES) else "<others>"


AnyResponseTool = Annotated[
    Annotated[ResponseFunctionTool, Tag("<function>")]
    | Annotated[ResponseCustomTool, Tag("<custom>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<namespace>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<web_search>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<web_search_2025_08_26>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<web_search_preview>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<web_search_preview_2025_03_11>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<file_search>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<computer>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<computer_use_preview>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<mcp>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<code_interpreter>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<image_generation>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<local_shell>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<shell>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<tool_search>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<apply_patch>")]
    | Annotated[OmittedTool, _OMITTED, Tag("<others>")],
    Discriminator(_kind_of_tool, "unknown_type", "'function', 'custom'"),
]
ResponseTools = Annotated[list[AnyResponseTool], Field(max_length=MAX_TOOLS)]


class ChosenFunction(FunctionName):
    """Requires a call of this function."""

    type: Literal["function"]


class ChosenCustomTool(FunctionName):
    """Requires a call of this custom tool."""

    type: Literal["custom"]


class AllowedResponseTool(LenientModel):
    """One of ``tools``. One that is neither a function nor a custom tool is omitted."""

    model_config = ConfigDict(extra="allow")

    type: str
    name: str = ""


class ResponseAllowedTools(StrictModel):
    """The subset of ``tools`` of which one may or must be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[AllowedResponseTool] = Field(max_length=MAX_TOOLS)


ResponseToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<string>")]
    | Annotated[
        Annotated[ChosenFunction, Tag("<function>")]
        | Annotated[ResponseAllowedTools, Tag("<allowed_tools>")]
        | Annotated[ChosenCustomTool, Tag("<custom>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<web_search_preview>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<web_search_preview_2025_03_11>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<file_search>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<computer>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<computer_use>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<computer_use_preview>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<image_generation>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<code_interpreter>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<mcp>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<apply_patch>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<shell>")],
        tagged_by("type", "function", "custom", "allowed_tools"),
        Tag("<object>"),
    ],
    one_of({str: "<string>", dict: "<object>"}, "a string or an object"),
]


class ResponseJsonSchema(JsonSchema):
    """JSON that is valid for a schema."""

    type: Literal["json_schema"]


class TextParams(StrictModel):
    """The format of the text."""

    format: Annotated[
        Annotated[TextFormat, Tag("<text>")]
        | Annotated[JsonObjectFormat, Tag("<json_object>")]
        | Annotated[ResponseJsonSchema, Tag("<json_schema>")],
        tagged_by("type", "text", "json_object", "json_schema"),
    ] = TextFormat(type="text")
    verbosity: Annotated[Any, Ignored("the model has no such control")] = None

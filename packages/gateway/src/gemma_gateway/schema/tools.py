"""Tools, response formats and structured outputs."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, Tag, model_validator

from gemma_gateway.schema.strict_model import (
    EmptyIsValue,
    Ignored,
    StrictModel,
    conflict,
    one_of,
    tagged_by,
)
from gemma_wire.messages import MAX_TOOLS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class FunctionDefinition(StrictModel):
    """A function that the model may call; without ``parameters`` it has no arguments."""

    name: Name
    description: str = ""
    parameters: dict[str, Any] = Field({}, description="a JSON schema")
    strict: bool | None = Field(None, description="refuse a schema that cannot be enforced completely")


class FunctionTool(StrictModel):
    """A function tool; the API form of ``gemma_wire.Tool``."""

    type: Literal["function"]
    function: FunctionDefinition

    @property
    def definition(self) -> FunctionDefinition:
        """What describes the tool."""
        return self.function

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.name


class TextInput(StrictModel):
    """Any text."""

    type: Literal["text"]


class GrammarDefinition(StrictModel):
    """A grammar for the complete input."""

    syntax: Literal["lark", "regex"]
    definition: Annotated[str, Field(min_length=1)]


class GrammarInput(StrictModel):
    """Text that a grammar allows."""

    type: Literal["grammar"]
    grammar: GrammarDefinition


InputFormat = Annotated[
    Annotated[TextInput, Tag("<text>")] | Annotated[GrammarInput, Tag("<grammar>")],
    tagged_by("type", "text", "grammar"),
]


class CustomDefinition(StrictModel):
    """A tool whose input is text."""

    name: Name
    description: str = ""
    format: InputFormat = TextInput(type="text")


class CustomTool(StrictModel):
    """A custom tool; the API form of ``gemma_wire.Tool`` with ``custom``."""

    type: Literal["custom"]
    custom: CustomDefinition

    @property
    def definition(self) -> CustomDefinition:
        """What describes the tool."""
        return self.custom

    @property
    def name(self) -> str:
        """The custom tool's."""
        return self.custom.name


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("<function>")] | Annotated[CustomTool, Tag("<custom>")],
    tagged_by("type", "function", "custom"),
]


class FunctionName(StrictModel):
    """The name of a function in ``tools``."""

    name: str


class NamedTool(StrictModel):
    """Requires a call of this function."""

    type: Literal["function"]
    function: FunctionName

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.name


class NamedCustomTool(StrictModel):
    """Requires a call of this custom tool."""

    type: Literal["custom"]
    custom: FunctionName

    @property
    def name(self) -> str:
        """The custom tool's."""
        return self.custom.name


class AllowedFunction(FunctionName):
    """A function by its name; the other fields of its definition are allowed and ignored."""

    model_config = ConfigDict(extra="ignore")


class AllowedTool(StrictModel):
    """One of ``tools``."""

    type: Literal["function"]
    function: AllowedFunction

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.name


class AllowedCustomTool(StrictModel):
    """One of ``tools``."""

    type: Literal["custom"]
    custom: AllowedFunction

    @property
    def name(self) -> str:
        """The custom tool's."""
        return self.custom.name


AnyAllowedTool = Annotated[
    Annotated[AllowedTool, Tag("<function>")] | Annotated[AllowedCustomTool, Tag("<custom>")],
    tagged_by("type", "function", "custom"),
]


class AllowedTools(StrictModel):
    """The subset of ``tools`` of which one may or must be called."""

    mode: Literal["auto", "required"]
    tools: list[AnyAllowedTool] = Field(max_length=MAX_TOOLS)


class AllowedToolsChoice(StrictModel):
    """See ``AllowedTools``."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<string>")]
    | Annotated[
        Annotated[NamedTool, Tag("<function>")]
        | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")]
        | Annotated[NamedCustomTool, Tag("<custom>")],
        tagged_by("type", "function", "custom", "allowed_tools"),
        Tag("<object>"),
    ],
    one_of({str: "<string>", dict: "<object>"}, "a string or an object"),
]


class TextFormat(StrictModel):
    """Unrestricted text."""

    type: Literal["text"]


class JsonObjectFormat(StrictModel):
    """Any JSON object, or JSON that is valid for a schema (llama.cpp: ``schema``, TGI: ``value``)."""

    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="a JSON schema")
    value: dict[str, Any] | None = Field(None, description="the same as `schema`")

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        if self.schema_ and self.value:
            raise conflict("value", "and 'schema' are alternatives; give one of them")
        return self


class JsonSchema(StrictModel):
    """A named JSON schema."""

    name: Annotated[Name, Ignored("a label")]
    description: Annotated[str, Ignored("only the schema is used")] = ""
    schema_: dict[str, Any] = Field({}, alias="schema", description="a JSON schema; default: any JSON")
    strict: bool | None = Field(None, description="refuse a schema that cannot be enforced completely")


class JsonSchemaFormat(StrictModel):
    """JSON that is valid for a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
    tagged_by("type", "text", "json_object", "json_schema"),
]


SchemaOrBool = Annotated[
    Annotated[dict[str, Any], Tag("<object>")] | Annotated[bool, Tag("<boolean>")],
    one_of({dict: "<object>", bool: "<boolean>"}, "an object or a boolean"),
]


class StructuredOutputs(StrictModel):
    """vLLM's ``structured_outputs``: at most one of these forms."""

    json_: Annotated[SchemaOrBool | None, EmptyIsValue()] = Field(
        None, alias="json", description="a JSON schema"
    )
    json_object: Literal[True] | None = Field(None, description="any JSON object")
    regex: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="must match the complete text"
    )
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = Field(
        None, description="the text is one of these"
    )
    grammar: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="a grammar in Lark's notation"
    )

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if len(self.given) > 1:
            raise conflict("", "takes one of 'json', 'json_object', 'regex', 'choice' and 'grammar'")
        return self

    @property
    def given(self) -> list[str]:
        """The names of the requested forms."""
        return [name for name, value in dict(self).items() if value is not None]

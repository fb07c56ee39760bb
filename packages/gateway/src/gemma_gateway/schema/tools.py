"""Tools, and the other ways to say what form an answer must have."""

from typing import Annotated, Any, Literal, Never, Self

from pydantic import ConfigDict, Field, Tag, model_validator

from gemma_gateway.schema.base import EmptyIsValue, NoEffect, Only, Strict, clash, one_of, tagged_by
from gemma_wire.messages import MAX_TOOLS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_ONLY_FUNCTIONS = Only(hint="the tools of this server are functions")


class Function(Strict):
    """A function that the model may call; without ``parameters`` it takes none."""

    name: Name
    description: str = ""
    parameters: dict[str, Any] = Field({}, description="a JSON schema")
    strict: bool | None = Field(None, description="refuse a schema that cannot be enforced entirely")


class FunctionTool(Strict):
    """A tool."""

    type: Literal["function"]
    function: Function


Tool = Annotated[
    Annotated[FunctionTool, Tag("<function>")] | Annotated[Never, _ONLY_FUNCTIONS, Tag("<custom>")],
    tagged_by("type", "function"),
]


class FunctionName(Strict):
    """The name of a function among ``tools``."""

    name: str


class NamedTool(Strict):
    """A call of this function."""

    type: Literal["function"]
    function: FunctionName


class AllowedFunction(FunctionName):
    """A function by its name; the rest of its definition may stand beside it, as the specification says."""

    model_config = ConfigDict(extra="ignore")


class AllowedTool(Strict):
    """One of the tools."""

    type: Literal["function"]
    function: AllowedFunction


class AllowedTools(Strict):
    """Some of the tools, of which one may or must be called."""

    mode: Literal["auto", "required"]
    tools: list[AllowedTool] = Field(max_length=MAX_TOOLS)


class AllowedToolsChoice(Strict):
    """See ``AllowedTools``."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<string>")]
    | Annotated[
        Annotated[NamedTool, Tag("<function>")]
        | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")]
        | Annotated[Never, _ONLY_FUNCTIONS, Tag("<custom>")],
        tagged_by("type", "function", "allowed_tools"),
        Tag("<object>"),
    ],
    one_of({str: "<string>", dict: "<object>"}, "a string or an object"),
]


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Any JSON object, or JSON that fits a schema, as llama.cpp (``schema``) and TGI (``value``) take it."""

    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="a JSON schema")
    value: dict[str, Any] | None = Field(None, description="the same as `schema`")

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        if self.schema_ and self.value:
            raise clash("value", "and 'schema' say the same thing; give one of them")
        return self


class JsonSchema(Strict):
    """A schema with a name."""

    name: Annotated[Name, NoEffect("a label")]
    description: Annotated[str, NoEffect("the schema alone decides the form")] = ""
    schema_: dict[str, Any] = Field({}, alias="schema", description="a JSON schema; any JSON without one")
    strict: bool | None = Field(None, description="refuse a schema that cannot be enforced entirely")


class JsonSchemaFormat(Strict):
    """JSON that fits a schema."""

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


class StructuredOutputs(Strict):
    """What vLLM calls so: at most one of the forms."""

    json_: Annotated[SchemaOrBool | None, EmptyIsValue()] = Field(
        None, alias="json", description="a JSON schema"
    )
    json_object: Literal[True] | None = Field(None, description="any JSON object")
    regex: Annotated[str, Field(min_length=1)] | None = Field(None, description="of the whole answer")
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = Field(
        None, description="the answer is one of these"
    )
    grammar: Annotated[str, Field(min_length=1)] | None = Field(None, description="Lark's notation")

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if len(self.given) > 1:
            raise clash("", "takes one of 'json', 'json_object', 'regex', 'choice' and 'grammar'")
        return self

    @property
    def given(self) -> list[str]:
        """The names of the forms that are asked for."""
        return [name for name, value in dict(self).items() if value is not None]

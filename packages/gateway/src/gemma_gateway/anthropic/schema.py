"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: supported, ignored and unsupported parameters."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from gemma_gateway.anthropic.blocks import CACHE_CONTROL, SystemContent
from gemma_gateway.anthropic.turns import AssistantTurn, Turns, check_results
from gemma_gateway.schema.extensions import REASONING
from gemma_gateway.schema.messages import LenientModel
from gemma_gateway.schema.sampling import TopK, TopP
from gemma_gateway.schema.strict_model import (
    Ignored,
    StrictModel,
    Unsupported,
    conflict,
    tagged_by,
)
from gemma_wire.messages import MAX_TOOLS
from gemma_wire.options import INT32_MAX, MAX_STOPS

_NO_SERVER = Unsupported(hint="this server runs no tools and keeps nothing")
_LABEL = Ignored("a label for Anthropic's accounts")
_ONE_TIER = Ignored("there is one tier")


def _with_type(tool: object) -> object:
    """A tool without a type is a custom tool."""
    return {**tool, "type": "custom"} if isinstance(tool, dict) and tool.get("type") is None else tool


def _kind_of_tool(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        return None
    return "<custom>" if kind == "custom" else "<server tool>"


class ClientTool(LenientModel):
    """A function that the model may call."""

    type: Literal["custom"] = Field(description="the default")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    description: str = ""
    input_schema: dict[str, Any] = Field(description="a JSON schema")
    strict: bool | None = Field(None, description="refuse a schema that cannot be enforced completely")
    allowed_callers: list[str] | None = Field(
        None, description="a tool that the model may not call directly is left out"
    )
    cache_control: Annotated[Any, CACHE_CONTROL] = None
    defer_loading: Annotated[Any, Ignored("the model sees all tools")] = None
    input_examples: Annotated[Any, Ignored("the model sees the description and the schema")] = None
    eager_input_streaming: Annotated[Any, Ignored("the input is always streamed")] = None

    @property
    def is_callable(self) -> bool:
        """Whether the model may call it itself."""
        return not self.allowed_callers or "direct" in self.allowed_callers


class ServerTool(LenientModel):
    """A tool that Anthropic defines or runs: ``web_search_…``, ``bash_…``, ``text_editor_…`` and others."""

    type: str
    name: str = ""


_LEFT_OUT = Ignored("tools of other types are left out; they are refused if `tool_choice` names one")
Tool = Annotated[
    Annotated[ClientTool, Tag("<custom>")] | Annotated[ServerTool, _LEFT_OUT, Tag("<server tool>")],
    Discriminator(_kind_of_tool, "unknown_type", "'custom'"),
    BeforeValidator(_with_type),
]


class AutoChoice(StrictModel):
    """The model decides."""

    type: Literal["auto"]
    disable_parallel_tool_use: bool = Field(False, description="at most one call")


class AnyChoice(StrictModel):
    """The model must call a tool."""

    type: Literal["any"]
    disable_parallel_tool_use: bool = Field(False, description="exactly one call")


class ToolChoice(StrictModel):
    """The model must call this tool, once."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: Annotated[Any, Ignored("the tool is called once")] = None


class NoneChoice(StrictModel):
    """The model may not call a tool; it does not see them."""

    type: Literal["none"]
    disable_parallel_tool_use: Annotated[Any, Ignored("there are no calls")] = None


AnyToolChoice = Annotated[
    Annotated[AutoChoice, Tag("<auto>")]
    | Annotated[AnyChoice, Tag("<any>")]
    | Annotated[ToolChoice, Tag("<tool>")]
    | Annotated[NoneChoice, Tag("<none>")],
    tagged_by("type", "auto", "any", "tool", "none"),
]


class OutputFormat(StrictModel):
    """JSON that is valid for a schema. A schema that cannot be enforced completely is refused."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema", description="a JSON schema")
    name: Annotated[Any, Ignored("a label")] = None


class OutputConfig(StrictModel):
    """The format of the output."""

    format: OutputFormat | None = None
    effort: Annotated[Any, REASONING] = None
    task_budget: Annotated[Any, REASONING] = None


class CountTokensRequest(StrictModel):
    """The parameters that make up the prompt."""

    model: str
    messages: Turns = Field(description="if the last is the assistant's, the response continues it")
    system: SystemContent = ""
    tools: list[Tool] = Field([], max_length=MAX_TOOLS)
    tool_choice: AnyToolChoice | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(None, description="the older name of `output_config.format`")

    cache_control: Annotated[Any, CACHE_CONTROL] = None
    thinking: Annotated[Any, REASONING] = None
    speed: Annotated[Any, Ignored("there is one speed")] = None
    context_management: Annotated[Any, Ignored("the prompt is never edited")] = None
    billing_policy: Annotated[Any, _LABEL] = None
    user_profile_id: Annotated[Any, _LABEL] = None
    workspace_id: Annotated[Any, _LABEL] = None
    mcp_servers: Annotated[Any, Unsupported(hint="connect to MCP servers in the client")] = None
    compaction: Annotated[Any, Unsupported(hint="ask for a summary in a message")] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        check_results(self.messages)
        if self.output_format and self.output_config and self.output_config.format:
            raise conflict("output_format", "and 'output_config.format' are alternatives; give one of them")
        self._check_tool_choice()
        return self

    def _check_tool_choice(self) -> None:
        match self.tool_choice:
            case ToolChoice(name=name) if name not in {tool.name for tool in self._callable}:
                left_out = any(tool.name == name for tool in self.tools)
                reason = "is a tool that this server does not run" if left_out else "is not a tool in 'tools'"
                raise conflict("tool_choice.name", reason, "invalid_value")
            case AnyChoice() if not self._callable:
                raise conflict("tool_choice", "requires a tool call, but 'tools' has no custom tool")

    @property
    def _callable(self) -> list[ClientTool]:
        return [tool for tool in self.tools if isinstance(tool, ClientTool) and tool.is_callable]

    @property
    def shown_tools(self) -> list[tuple[int, ClientTool]]:
        """The tools that the model may call, each with its index in ``tools``."""
        if isinstance(self.tool_choice, NoneChoice):
            return []
        chosen = self.tool_choice.name if isinstance(self.tool_choice, ToolChoice) else None
        return [
            (i, tool)
            for i, tool in enumerate(self.tools)
            if isinstance(tool, ClientTool) and tool.is_callable and chosen in (None, tool.name)
        ]

    @property
    def continues(self) -> bool:
        """Whether the response continues the last message."""
        return isinstance(self.messages[-1], AssistantTurn)

    @property
    def must_call(self) -> bool:
        """Whether the model must call a tool."""
        return isinstance(self.tool_choice, AnyChoice | ToolChoice)

    @property
    def parallel_calls(self) -> bool:
        """Whether there may be several tool calls."""
        match self.tool_choice:
            case AutoChoice() | AnyChoice():
                return not self.tool_choice.disable_parallel_tool_use
        return not isinstance(self.tool_choice, ToolChoice)

    @property
    def format(self) -> tuple[str, OutputFormat] | None:
        """The parameter that asks for JSON, and its value."""
        if self.output_config and self.output_config.format:
            return "output_config.format", self.output_config.format
        return ("output_format", self.output_format) if self.output_format else None


class MessagesRequest(CountTokensRequest):
    """The request body. ``schema.parameter_table`` lists how each parameter is treated."""

    max_tokens: int = Field(ge=1, le=INT32_MAX)
    stop_sequences: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS)] = Field(
        []
    )
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: TopP | None = None
    top_k: TopK | None = Field(None, description="0 and -1 keep every token")

    metadata: Annotated[Any, _LABEL] = None
    service_tier: Annotated[Any, _ONE_TIER] = None
    inference_geo: Annotated[Any, Ignored("the model runs where this server runs")] = None
    diagnostics: Annotated[Any, Ignored("the usage reports what was cached")] = None
    fallbacks: Annotated[Any, Ignored("there is no routing: `model` names the model that is used")] = None
    fallback_credit_token: Annotated[Any, _LABEL] = None
    container: Annotated[Any, _NO_SERVER] = None
    thread: Annotated[Any, _NO_SERVER] = None

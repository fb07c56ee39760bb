"""``POST /v1/chat/completions``: supported, ignored and unsupported parameters."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gemma_gateway.schema.chat_template_options import ChatTemplateParams
from gemma_gateway.schema.messages import ChatMessages, TextContent, check_calls
from gemma_gateway.schema.sampling import ACCOUNTS, GenerationRequest, MaxTokens
from gemma_gateway.schema.strict_model import Ignored, StrictModel, Unsupported, conflict
from gemma_gateway.schema.tools import (
    AllowedToolsChoice,
    AnyTool,
    NamedCustomTool,
    NamedTool,
    ResponseFormat,
    TextFormat,
    ToolChoice,
)
from gemma_wire.messages import MAX_TOOLS
from gemma_wire.options import MAX_TOP_LOGPROBS

_CACHE = Ignored("the prefix cache is always used")
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class Prediction(StrictModel):
    """A text that the response is expected to be similar to."""

    type: Literal["content"]
    content: TextContent

    @property
    def text(self) -> str:
        """The complete text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(GenerationRequest, ChatTemplateParams):
    """The request body. ``schema.parameter_table`` lists how each parameter is treated."""

    messages: ChatMessages
    max_tokens: MaxTokens = None
    max_completion_tokens: MaxTokens = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat = TextFormat(type="text")
    tools: list[AnyTool] = Field([], max_length=MAX_TOOLS)
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    service_tier: Annotated[
        str | None, Field(description="there is one tier; the response names it: `default`")
    ] = None

    prediction: Annotated[
        Prediction | None,
        Field(description="drafts for the response, which is the same without; with any other parameter"),
    ] = None

    # Labels and hints, which never change the response.
    safety_identifier: Annotated[str, Field(max_length=64), ACCOUNTS] = ""
    prompt_cache_key: Annotated[str, _CACHE] = ""
    prompt_cache_retention: Annotated[Any, _CACHE] = None
    prompt_cache_options: Annotated[Any, _CACHE] = None
    metadata: Annotated[Metadata | None, ACCOUNTS] = None
    verbosity: Annotated[Any, Ignored("the model has no such control")] = None
    store: Annotated[Any, Ignored("nothing is stored")] = None

    # Unsupported, unless the value is a no-op.
    functions: Annotated[Any, Unsupported(hint="use 'tools'")] = None
    function_call: Annotated[Any, Unsupported("none", "auto", hint="use 'tool_choice'")] = None
    modalities: Annotated[Any, Unsupported(["text"])] = None
    audio: Annotated[Any, Unsupported(hint="the model does not generate audio")] = None
    web_search_options: Annotated[Any, Unsupported(hint="there is no web search")] = None
    moderation: Annotated[Any, Unsupported()] = None
    best_of: Annotated[Any, Unsupported(1, hint="use 'n'")] = None
    echo: Annotated[Any, Unsupported(False)] = None
    documents: Annotated[Any, Unsupported(hint="put them into a message")] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        check_calls(self.messages)
        self.check_turns(self.messages)
        self._check_counts()
        self._check_response_format()
        return self

    def _check_counts(self) -> None:
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise conflict("max_tokens", "differs from 'max_completion_tokens'; give one of them")
        if self.min_tokens and self.limit and self.min_tokens > self.limit:
            raise conflict("min_tokens", "is greater than 'max_tokens'")
        if self.top_logprobs and not self.logprobs:
            raise conflict("top_logprobs", "is only allowed when 'logprobs' is true")

    def _check_response_format(self) -> None:
        if not isinstance(self.response_format, TextFormat) and self.forms:
            form = self.forms[0][0].partition(".")[0]
            raise conflict(form, "and 'response_format' are alternatives; give one of them")
        for param, kind, name in self._chosen_tools():
            if (kind, name) not in {(tool.type, tool.name) for tool in self.tools}:
                raise conflict(param, f"is not the name of a {kind} tool in 'tools'", "invalid_value")
        if self.must_call and not self.callable_names:
            raise conflict("tool_choice", "requires a tool call, but no tool is allowed")

    def _chosen_tools(self) -> list[tuple[str, str, str]]:
        """The path, type and name of each tool that ``tool_choice`` names."""
        match self.tool_choice:
            case NamedTool() | NamedCustomTool():
                chosen = self.tool_choice
                return [(f"tool_choice.{chosen.type}.name", chosen.type, chosen.name)]
            case AllowedToolsChoice(allowed_tools=allowed):
                path = "tool_choice.allowed_tools.tools[{}].{}.name"
                return [
                    (path.format(i, tool.type), tool.type, tool.name) for i, tool in enumerate(allowed.tools)
                ]
        return []

    @property
    def limit(self) -> int | None:
        """The maximum number of new tokens; ``None``: what the context has room for."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def must_call(self) -> bool:
        """Whether the model must call a tool."""
        match self.tool_choice:
            case AllowedToolsChoice(allowed_tools=allowed):
                return allowed.mode == "required"
        return self.tool_choice == "required" or self.names_tool

    @property
    def names_tool(self) -> bool:
        """Whether ``tool_choice`` names the one tool that is called."""
        return isinstance(self.tool_choice, NamedTool | NamedCustomTool)

    @property
    def callable_names(self) -> set[str]:
        """The names of the tools that the model may call."""
        if self.tool_choice == "none":
            return set()
        if self.names_tool or isinstance(self.tool_choice, AllowedToolsChoice):
            return {name for _, _, name in self._chosen_tools()}
        return {tool.name for tool in self.tools}

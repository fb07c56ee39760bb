"""``POST /v1/chat/completions``: what is honoured, what has no effect, what is refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gemma_gateway.schema.base import NoEffect, Only, Strict, clash
from gemma_gateway.schema.messages import Conversation, TextContent, check_calls
from gemma_gateway.schema.sampling import ACCOUNTS, MaxTokens, Sampled
from gemma_gateway.schema.template import Templated
from gemma_gateway.schema.tools import (
    AllowedToolsChoice,
    NamedTool,
    ResponseFormat,
    TextFormat,
    Tool,
    ToolChoice,
)
from gemma_wire.messages import MAX_TOOLS
from gemma_wire.options import MAX_TOP_LOGPROBS

_CACHE = NoEffect("what was computed before is always used again")
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class Prediction(Strict):
    """What the answer will probably be."""

    type: Literal["content"]
    content: TextContent


class ChatRequest(Sampled, Templated):
    """The body. ``schema.policy.parameters`` lists what becomes of each parameter."""

    messages: Conversation
    max_tokens: MaxTokens = None
    max_completion_tokens: MaxTokens = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat = TextFormat(type="text")
    tools: list[Tool] = Field([], max_length=MAX_TOOLS)
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    service_tier: Annotated[
        str | None, Field(description="there is one tier, and the answer tells its name: `default`")
    ] = None

    # Labels and hints: they never touch the answer.
    safety_identifier: Annotated[str, Field(max_length=64), ACCOUNTS] = ""
    prompt_cache_key: Annotated[str, _CACHE] = ""
    prompt_cache_retention: Annotated[Any, _CACHE] = None
    prompt_cache_options: Annotated[Any, _CACHE] = None
    metadata: Annotated[Metadata | None, ACCOUNTS] = None
    prediction: Annotated[Prediction | None, NoEffect("it could only make an answer come faster")] = None
    verbosity: Annotated[Any, NoEffect("the model has no such control")] = None
    store: Annotated[Any, NoEffect("nothing is stored here, whatever is asked")] = None

    # Refused, except where the value asks for nothing.
    functions: Annotated[Any, Only(hint="use 'tools'")] = None
    function_call: Annotated[Any, Only("none", "auto", hint="use 'tool_choice'")] = None
    modalities: Annotated[Any, Only(["text"])] = None
    audio: Annotated[Any, Only(hint="the model does not speak")] = None
    web_search_options: Annotated[Any, Only(hint="the model cannot search")] = None
    moderation: Annotated[Any, Only()] = None
    best_of: Annotated[Any, Only(1, hint="use 'n'")] = None
    echo: Annotated[Any, Only(False)] = None
    documents: Annotated[Any, Only(hint="put them into a message")] = None

    @model_validator(mode="after")
    def _fits_together_in_chat(self) -> Self:
        check_calls(self.messages)
        self.check_turns(self.messages)
        self._check_counts()
        self._check_form()
        return self

    def _check_counts(self) -> None:
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise clash("max_tokens", "differs from 'max_completion_tokens'; give one of them")
        if self.min_tokens and self.limit and self.min_tokens > self.limit:
            raise clash("min_tokens", "is greater than 'max_tokens'")
        if self.top_logprobs and not self.logprobs:
            raise clash("top_logprobs", "is only allowed when 'logprobs' is true")

    def _check_form(self) -> None:
        formed = not isinstance(self.response_format, TextFormat)
        if formed and self.forms:
            form = self.forms[0][0].partition(".")[0]
            raise clash(form, "and 'response_format' say the same thing; give one of them")
        for param, name in self._chosen_tools():
            if name not in {tool.function.name for tool in self.tools}:
                raise clash(param, "is not the name of a function in 'tools'", "invalid_value")
        if self.must_call and not self.callable_names:
            raise clash("tool_choice", "asks for a call, but there is no tool that may be called")

    def _chosen_tools(self) -> list[tuple[str, str]]:
        """The functions that ``tool_choice`` names, each with the name's path."""
        match self.tool_choice:
            case NamedTool(function=function):
                return [("tool_choice.function.name", function.name)]
            case AllowedToolsChoice(allowed_tools=allowed):
                path = "tool_choice.allowed_tools.tools[{}].function.name"
                return [(path.format(i), tool.function.name) for i, tool in enumerate(allowed.tools)]
        return []

    @property
    def limit(self) -> int | None:
        """At most so many new tokens."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def must_call(self) -> bool:
        """Whether the answer must be a call."""
        match self.tool_choice:
            case AllowedToolsChoice(allowed_tools=allowed):
                return allowed.mode == "required"
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def callable_names(self) -> set[str]:
        """The functions that may be called."""
        if self.tool_choice == "none":
            return set()
        if isinstance(self.tool_choice, NamedTool | AllowedToolsChoice):
            return {name for _, name in self._chosen_tools()}
        return {tool.function.name for tool in self.tools}

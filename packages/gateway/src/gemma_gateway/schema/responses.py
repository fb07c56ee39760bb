"""``POST /v1/responses``: supported, ignored and unsupported parameters."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gemma_gateway.schema.chat import Metadata
from gemma_gateway.schema.extensions import REASONING
from gemma_gateway.schema.response_items import AnyInput
from gemma_gateway.schema.response_tools import (
    ChosenCustomTool,
    ChosenFunction,
    ResponseAllowedTools,
    ResponseToolChoice,
    ResponseTools,
    TextParams,
    UsedTool,
)
from gemma_gateway.schema.sampling import ACCOUNTS, MaxTokens, SamplingRequest
from gemma_gateway.schema.strict_model import Ignored, StrictModel, Unsupported, conflict
from gemma_gateway.schema.tools import TextFormat
from gemma_wire.options import MAX_TOP_LOGPROBS

LOGPROBS = "message.output_text.logprobs"
_CACHE = Ignored("the prefix cache is always used")
_STORED = "needs stored responses (`API_STORE`)"
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
]


class ResponseStreamOptions(StrictModel):
    """Options of a streamed response."""

    include_usage: Annotated[Any, Ignored("the last event always has the usage")] = None
    include_obfuscation: bool = Field(True, description="pads deltas, so that their sizes reveal less")


class ResponsesRequest(SamplingRequest):
    """The request body. ``schema.parameter_table`` lists how each parameter is treated."""

    input: AnyInput
    instructions: str | None = Field(None, description="precede the input; not kept for later responses")
    text: TextParams = TextParams()
    tools: ResponseTools = Field([])
    tool_choice: ResponseToolChoice = "auto"
    parallel_tool_calls: bool = True
    max_output_tokens: MaxTokens = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="auto: the oldest items are left out until the input fits the context"
    )
    include: list[Includable] = Field([], description=f"`{LOGPROBS}`; the others have no effect")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description=f"with `{LOGPROBS}` in `include`"
    )
    stream_options: ResponseStreamOptions | None = None
    metadata: Metadata | None = Field(None, description="the response has it, too")
    service_tier: str | None = Field(None, description="there is one tier; the response names it: `default`")
    store: bool | None = Field(None, description="the response says whether it is stored")
    previous_response_id: str | None = Field(None, description=_STORED)
    background: bool | None = Field(None, description=f"{_STORED}, and no `stream`")

    # Labels and hints, which never change the response.
    reasoning: Annotated[Any, REASONING] = None
    max_tool_calls: Annotated[Any, Ignored("it limits the tools that OpenAI runs")] = None
    safety_identifier: Annotated[str, Field(max_length=64), ACCOUNTS] = ""
    prompt_cache_key: Annotated[str, _CACHE] = ""
    prompt_cache_retention: Annotated[Any, _CACHE] = None
    prompt_cache_options: Annotated[Any, _CACHE] = None
    image: Annotated[Any, Ignored("the model has one image resolution")] = None
    access_programs: Annotated[Any, ACCOUNTS] = None
    background_options: Annotated[Any, Ignored("a response in the background begins at once")] = None

    # Unsupported, unless the value is a no-op.
    conversation: Annotated[Any, Unsupported(hint="use 'previous_response_id'")] = None
    prompt: Annotated[Any, Unsupported(hint="prompts are not stored; use 'instructions'")] = None
    context_management: Annotated[Any, Unsupported(hint="nothing is compacted; use 'truncation'")] = None
    moderation: Annotated[Any, Unsupported()] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if not isinstance(self.text.format, TextFormat) and self.forms:
            form = self.forms[0][0].partition(".")[0]
            raise conflict(form, "and 'text.format' are alternatives; give one of them")
        if self.background and self.stream:
            raise conflict("background", "is only allowed when 'stream' is false")
        for param, kind, name in self._chosen_tools():
            if (kind, name) not in {(tool.type, tool.name) for _, tool in self.used_tools}:
                raise conflict(param, f"is not the name of a {kind} tool in 'tools'", "invalid_value")
        if self.must_call and not self.callable_names:
            raise conflict("tool_choice", "requires a tool call, but there is no tool that is allowed")
        return self

    def _chosen_tools(self) -> list[tuple[str, str, str]]:
        """The path, type and name of each tool that ``tool_choice`` names."""
        match self.tool_choice:
            case ChosenFunction() | ChosenCustomTool():
                return [("tool_choice.name", self.tool_choice.type, self.tool_choice.name)]
            case ResponseAllowedTools(tools=tools):
                named = [(i, tool) for i, tool in enumerate(tools) if tool.type in ("function", "custom")]
                return [(f"tool_choice.tools[{i}].name", tool.type, tool.name) for i, tool in named]
        return []

    @property
    def used_tools(self) -> list[tuple[int, UsedTool]]:
        """The tools that are used, each with its place in ``tools``."""
        return [(i, tool) for i, tool in enumerate(self.tools) if isinstance(tool, UsedTool)]

    @property
    def names_tool(self) -> bool:
        """Whether ``tool_choice`` names the one tool that is called."""
        return isinstance(self.tool_choice, ChosenFunction | ChosenCustomTool)

    @property
    def must_call(self) -> bool:
        """Whether the model must call a tool."""
        if isinstance(self.tool_choice, ResponseAllowedTools):
            return self.tool_choice.mode == "required"
        return self.tool_choice == "required" or self.names_tool

    @property
    def callable_names(self) -> set[str]:
        """The names of the tools that the model may call."""
        if self.tool_choice == "none":
            return set()
        if self.names_tool or isinstance(self.tool_choice, ResponseAllowedTools):
            return {name for _, _, name in self._chosen_tools()}
        return {tool.name for _, tool in self.used_tools}

    @property
    def logprobs(self) -> int | None:
        """The number of alternatives of each token in the response; ``None``: no log probabilities."""
        return (self.top_logprobs or 0) if LOGPROBS in self.include else None

    @property
    def include_obfuscation(self) -> bool:
        """Whether deltas are padded."""
        return self.stream_options is None or self.stream_options.include_obfuscation

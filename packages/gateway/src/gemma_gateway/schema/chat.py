"""``POST /v1/chat/completions``: what is honoured, what has no effect, what is refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from gemma_gateway.schema.base import NO_EFFECT, Only, Strict, tagged_by, text_or_parts
from gemma_wire.options import INT32_MAX, SEED_MAX, SEED_MIN


class TextPart(Strict):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """Where a picture is. ``detail`` has no effect: every picture is seen at the model's one resolution."""

    url: str
    detail: Annotated[Literal["auto", "low", "high", "original"], NO_EFFECT] = "auto"


class ImagePart(Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


UserPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image_url>")],
    tagged_by("type", "text", "image_url"),
]
TextContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[TextPart], Field(min_length=1), Tag("<array>")],
    text_or_parts(),
]
UserContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[UserPart], Field(min_length=1), Tag("<array>")],
    text_or_parts(),
]


class _Turn(Strict):
    # Gemma's prompt has no place for a participant's name, and to drop it would change what was asked.
    name: Annotated[Any, Only(None)] = None


class SystemMessage(_Turn):
    """Instructions. ``developer`` is the newer name of ``system``."""

    role: Literal["system", "developer"]
    content: TextContent


class UserMessage(_Turn):
    """What the user said and showed."""

    role: Literal["user"]
    content: UserContent


class AssistantMessage(_Turn):
    """What the model said before; an answer's own ``message`` fits here as it is."""

    role: Literal["assistant"]
    content: TextContent
    refusal: Annotated[Any, Only(None)] = None
    audio: Annotated[Any, Only(None)] = None
    tool_calls: Annotated[Any, Only(None, [])] = None
    function_call: Annotated[Any, Only(None)] = None
    annotations: Annotated[Any, Only(None, [])] = None


Message = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[SystemMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")],
    tagged_by("role", "system", "developer", "user", "assistant"),
]


class StreamOptions(Strict):
    """How to stream."""

    include_usage: bool = False
    include_obfuscation: Annotated[Any, Only(False)] = False


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stop = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1, max_length=4),
    BeforeValidator(_as_list),
]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class ChatRequest(Strict):
    """The body. ``schema.base.dispositions`` lists what becomes of each parameter."""

    model: str
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    max_completion_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    stop: Stop | None = None
    seed: int | None = Field(None, ge=SEED_MIN, le=SEED_MAX)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    service_tier: Literal["auto", "default"] | None = None

    # Not in OpenAI's API, named as other servers name them.
    top_k: int | None = Field(None, ge=-1, le=INT32_MAX, description="0 and -1 keep every token")
    min_tokens: int | None = Field(None, ge=0, le=INT32_MAX)
    ignore_eos: bool | None = None

    # Labels for OpenAI's own accounts, abuse detection and caches: they never touch the answer.
    user: Annotated[str, NO_EFFECT] = ""
    safety_identifier: Annotated[str, Field(max_length=64), NO_EFFECT] = ""
    prompt_cache_key: Annotated[str, NO_EFFECT] = ""
    prompt_cache_retention: Annotated[Literal["in_memory", "24h"] | None, NO_EFFECT] = None
    metadata: Annotated[Metadata | None, NO_EFFECT] = None

    # Refused, except where the value asks for nothing.
    n: Annotated[Any, Only(None, 1)] = None
    frequency_penalty: Annotated[Any, Only(None, 0)] = None
    presence_penalty: Annotated[Any, Only(None, 0)] = None
    logit_bias: Annotated[Any, Only(None, {})] = None
    logprobs: Annotated[Any, Only(None, False)] = None
    top_logprobs: Annotated[Any, Only(None)] = None
    response_format: Annotated[Any, Only({"type": "text"})] = None
    tools: Annotated[Any, Only([])] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, Only(True, False)] = None
    functions: Annotated[Any, Only()] = None
    function_call: Annotated[Any, Only("none", "auto")] = None
    modalities: Annotated[Any, Only(None, ["text"])] = None
    audio: Annotated[Any, Only(None)] = None
    prediction: Annotated[Any, Only(None)] = None
    reasoning_effort: Annotated[Any, Only(None, "none")] = None
    verbosity: Annotated[Any, Only(None, "medium")] = None
    store: Annotated[Any, Only(None, False)] = None
    web_search_options: Annotated[Any, Only()] = None
    moderation: Annotated[Any, Only(None)] = None
    prompt_cache_options: Annotated[Any, Only()] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise _clash("stream_options", "is only allowed when 'stream' is true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise _clash("max_tokens", "differs from 'max_completion_tokens'; give one of them")
        if self.min_tokens and self.limit and self.min_tokens > self.limit:
            raise _clash("min_tokens", "is greater than 'max_tokens'")
        return self

    @property
    def limit(self) -> int | None:
        """At most so many new tokens."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def _clash(param: str, reason: str) -> PydanticCustomError:
    return PydanticCustomError("clash", "'{param}' {reason}.", {"param": param, "reason": reason})

"""The parameters that the endpoints for generation share."""

from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gemma_gateway.schema.extensions import Extensions
from gemma_gateway.schema.output_details import OutputDetailParams, TokenId
from gemma_gateway.schema.strict_model import Ignored, StrictModel, conflict
from gemma_gateway.schema.structured_outputs import StructuredOutputParams
from gemma_wire.options import (
    INT32_MAX,
    LEAST_REPETITION_PENALTY,
    MAX_BIASES,
    MAX_CACHE_SALT,
    MAX_CHOICES,
    MAX_STOPS,
    MOST_REPETITION_PENALTY,
    SEED_MAX,
    SEED_MIN,
)

MAX_STOP_IDS = 256
ACCOUNTS = Ignored("a label for OpenAI's accounts, abuse detection and caches")


class StreamOptions(StrictModel):
    """Options of a streamed response."""

    include_usage: bool = False
    continuous_usage_stats: bool = Field(
        False, description="with `include_usage`: each chunk reports the `usage` of its choice so far"
    )
    include_obfuscation: bool = Field(True, description="pads events, so that their sizes reveal less")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unlimited(value: object) -> object:
    """llama.cpp and its clients write -1 for no limit."""
    return INT32_MAX if value == -1 else value


def _token_id(key: str) -> str:
    if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) <= INT32_MAX):
        raise PydanticCustomError("token_id", "a key must be a token id")
    return key


Stop = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1, max_length=MAX_STOPS),
    BeforeValidator(_as_list),
]
UNLIMITED = BeforeValidator(_unlimited)
MaxTokens = Annotated[
    int | None, Field(ge=1, le=INT32_MAX, description="-1: what the context has room for"), UNLIMITED
]
LogitBias = Annotated[
    dict[Annotated[str, AfterValidator(_token_id)], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
]


ALIASES: Final = {"repetition_penalty": "repeat_penalty"}
"""Parameter → its name in llama.cpp's API."""
GREEDY_TOP_P: Final = 1e-6
"""0 asks for the smallest set of tokens, which is the most likely token; the engine requires more than 0."""
TopP = Annotated[float, Field(ge=0, le=1), AfterValidator(lambda top_p: max(top_p, GREEDY_TOP_P))]
CacheSalt = Annotated[str, Field(max_length=MAX_CACHE_SALT), AfterValidator(lambda salt: salt or None)]
TopK = Annotated[int, Field(ge=-1, le=INT32_MAX), AfterValidator(lambda top_k: max(top_k, 0))]


class SamplingRequest(Extensions, StructuredOutputParams):
    """Sampling and stopping.

    A sampling parameter is a field with the name that it has in ``gemma_wire.SamplingParams``, where its
    meaning and default are declared; it is passed on under this name (``generation.option_fields``).
    """

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: TopP | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: LogitBias | None = None
    seed: int | None = Field(None, ge=SEED_MIN, le=SEED_MAX)
    stop: Stop | None = None
    stream: bool | None = None
    user: Annotated[str, ACCOUNTS] = ""

    # Not in OpenAI's API; the names are vLLM's.
    top_k: TopK | None = Field(None, description="0 and -1 keep every token")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=LEAST_REPETITION_PENALTY, le=MOST_REPETITION_PENALTY)
    repeat_penalty: float | None = Field(
        None,
        ge=LEAST_REPETITION_PENALTY,
        le=MOST_REPETITION_PENALTY,
        description="llama.cpp's name of `repetition_penalty`",
    )
    do_sample: bool | None = Field(None, description="false: the most likely token, as with `temperature` 0")
    min_tokens: int | None = Field(None, ge=0, le=INT32_MAX)
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] | None = None
    cache_salt: CacheSalt | None = Field(
        None, description="only requests with the same salt share the prefix cache"
    )

    @model_validator(mode="after")
    def _check_aliases(self) -> Self:
        for name, alias in ALIASES.items():
            both = getattr(self, name), getattr(self, alias)
            if None not in both and both[0] != both[1]:
                raise conflict(alias, f"differs from '{name}'; give one of them")
        return self

    def value(self, name: str) -> Any:
        """The value of a parameter, given by its own name or by its alias; ``None`` if it was not given."""
        own = getattr(self, name, None)
        return getattr(self, ALIASES[name]) if own is None and name in ALIASES else own

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of a stream reports the token counts so far."""
        return False


class GenerationRequest(SamplingRequest, OutputDetailParams):
    """The parameters that chat completions and plain completions share."""

    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of a stream reports the token counts so far."""
        asked = self.stream_options is not None and self.stream_options.continuous_usage_stats
        return bool(self.stream and self.include_usage and asked)

    @property
    def include_obfuscation(self) -> bool:
        """Whether a stream's events are padded."""
        return self.stream_options is None or self.stream_options.include_obfuscation

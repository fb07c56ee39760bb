"""What chat completions and plain completions have in common."""

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gemma_gateway.schema.base import NoEffect, Strict, clash
from gemma_gateway.schema.details import Details, TokenId
from gemma_gateway.schema.extensions import Extensions
from gemma_gateway.schema.guided import Guided
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
ACCOUNTS = NoEffect("a label for OpenAI's own accounts, abuse detection and caches")


class StreamOptions(Strict):
    """How to stream."""

    include_usage: bool = False
    continuous_usage_stats: bool = Field(
        False, description="with `include_usage`, each chunk tells the `usage` of its choice so far"
    )
    include_obfuscation: bool = Field(True, description="pads events, so that their sizes tell less")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unlimited(value: object) -> object:
    """-1 is no limit, as llama.cpp and its clients write it."""
    return INT32_MAX if value == -1 else value


def _token_id(key: str) -> str:
    if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) <= INT32_MAX):
        raise PydanticCustomError("token_id", "a key must be a token's id")
    return key


Stop = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1, max_length=MAX_STOPS),
    BeforeValidator(_as_list),
]
UNLIMITED = BeforeValidator(_unlimited)
MaxTokens = Annotated[
    int | None, Field(ge=1, le=INT32_MAX, description="-1: as many as the context holds"), UNLIMITED
]
LogitBias = Annotated[
    dict[Annotated[str, AfterValidator(_token_id)], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
]


class Sampled(Extensions, Guided, Details):
    """How the tokens are chosen, how many, and how they are told."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: LogitBias | None = None
    seed: int | None = Field(None, ge=SEED_MIN, le=SEED_MAX)
    stop: Stop | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, ACCOUNTS] = ""

    # Not in OpenAI's API, named as vLLM names them.
    top_k: int | None = Field(None, ge=-1, le=INT32_MAX, description="0 and -1 keep every token")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=LEAST_REPETITION_PENALTY, le=MOST_REPETITION_PENALTY)
    repeat_penalty: float | None = Field(
        None,
        ge=LEAST_REPETITION_PENALTY,
        le=MOST_REPETITION_PENALTY,
        description="llama.cpp's name of `repetition_penalty`",
    )
    do_sample: bool | None = Field(None, description="false: the likeliest token, as with `temperature` 0")
    min_tokens: int | None = Field(None, ge=0, le=INT32_MAX)
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] | None = None
    cache_salt: str | None = Field(
        None, max_length=MAX_CACHE_SALT, description="only requests with the same salt share a prefix cache"
    )

    @model_validator(mode="after")
    def _one_repetition_penalty(self) -> Self:
        both = (self.repetition_penalty, self.repeat_penalty)
        if None not in both and both[0] != both[1]:
            raise clash("repeat_penalty", "differs from 'repetition_penalty'; give one of them")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of a stream tells the token counts so far."""
        asked = self.stream_options is not None and self.stream_options.continuous_usage_stats
        return bool(self.stream and self.include_usage and asked)

    @property
    def include_obfuscation(self) -> bool:
        """Whether a stream's events are padded."""
        return self.stream_options is None or self.stream_options.include_obfuscation

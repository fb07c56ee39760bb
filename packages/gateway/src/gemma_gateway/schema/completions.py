"""``POST /v1/completions``: supported, ignored and unsupported parameters."""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from gemma_gateway.schema.output_details import TokenId
from gemma_gateway.schema.sampling import UNLIMITED, GenerationRequest
from gemma_gateway.schema.strict_model import Unsupported, conflict
from gemma_wire.options import INT32_MAX

MAX_PROMPTS = 128
"""Prompts of one request. Each is a generation of its own; all run at the same time."""


def _kind_of_prompt(value: Any) -> str | None:
    """The tag of a prompt; for an array it depends on the first item."""
    if value is None or isinstance(value, str):
        return "<string>"
    if not isinstance(value, list):
        return None
    first = value[0] if value else None
    return {int: "<tokens>", list: "<token arrays>"}.get(type(first), "<strings>")


Tokens = Annotated[list[TokenId], Field(min_length=1)]
Prompt = Annotated[
    Annotated[str | None, Tag("<string>")]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS), Tag("<strings>")]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS), Tag("<token arrays>")],
    Discriminator(_kind_of_prompt, "neither", "a string, or an array of strings, tokens or token arrays"),
]


class CompletionRequest(GenerationRequest):
    """The request body. ``schema.parameter_table`` lists how each parameter is treated."""

    prompt: Prompt = Field(description="null: an empty prompt")
    max_tokens: Annotated[
        int | None,
        Field(ge=0, le=INT32_MAX, description="default 16; -1: what the context has room for"),
        UNLIMITED,
    ] = None
    best_of: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    suffix: Annotated[Any, Unsupported("", hint="the model does not support infilling")] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise conflict("max_tokens", "may be 0 only when 'echo' is true")
        if self.min_tokens and self.min_tokens > self.limit:
            raise conflict("min_tokens", "is greater than 'max_tokens'")
        if self.best_of is not None and self.best_of < self.choices:
            raise conflict("best_of", "is less than 'n'")
        if self.stream and self.candidates > self.choices:
            raise conflict("best_of", "is only allowed when 'stream' is false")
        return self

    @property
    def limit(self) -> int:
        """The maximum number of new tokens."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def choices(self) -> int:
        """The number of choices that are returned for each prompt."""
        return self.n or 1

    @property
    def candidates(self) -> int:
        """The number of choices that are generated for each prompt; the best are returned."""
        return self.best_of or self.choices

    @property
    def needs_prompt_ids(self) -> bool:
        """Whether the response contains the ids of the prompt's tokens."""
        as_ids = self.echo and self.logprobs is not None and self.return_tokens_as_token_ids
        return bool(self.return_token_ids or as_ids)

    @property
    def is_batch(self) -> bool:
        """Whether ``prompt`` is an array of prompts."""
        return isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)

    @property
    def prompts(self) -> list[str | list[int]]:
        """The list of prompts."""
        if self.is_batch:
            return list(self.prompt)  # type: ignore[arg-type]
        return [self.prompt or ""]  # type: ignore[list-item]

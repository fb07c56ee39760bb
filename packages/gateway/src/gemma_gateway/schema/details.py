"""What is told beside the text of an answer, and how; named as vLLM names it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gemma_gateway.schema.base import Strict, clash
from gemma_wire.options import INT32_MAX, MAX_LOGPROB_TOKEN_IDS, MAX_TOP_LOGPROBS

TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]


class Details(Strict):
    """Token ids and log probabilities beyond OpenAI's."""

    return_token_ids: bool | None = Field(
        None, description="`token_ids` of each choice, and `prompt_token_ids`; streamed with the first chunk"
    )
    return_tokens_as_token_ids: bool | None = Field(
        None, description="`logprobs` name each token `token_id:<its id>`"
    )
    prompt_logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="as vLLM tells them; 65,536 log probabilities of one prompt are the limit",
    )
    logprob_token_ids: Annotated[list[TokenId], Field(max_length=MAX_LOGPROB_TOKEN_IDS)] | None = Field(
        None, description="in `logprobs`, these tokens instead of the likeliest"
    )
    skip_special_tokens: bool | None = Field(
        None, description="false: the names of control tokens are part of the text"
    )

    @model_validator(mode="after")
    def _has_logprobs(self) -> Self:
        """``logprobs`` is a boolean of chat completions, and a number of plain completions that may be 0."""
        asked = getattr(self, "logprobs", None)
        if self.logprob_token_ids and (asked is None or asked is False):
            raise clash("logprob_token_ids", "is only allowed when 'logprobs' is given")
        return self

"""Token ids and log probabilities in the response, with vLLM's names."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gemma_gateway.schema.strict_model import StrictModel, conflict
from gemma_wire.options import INT32_MAX, MAX_LOGPROB_TOKEN_IDS, MAX_TOP_LOGPROBS

TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]


class OutputDetailParams(StrictModel):
    """What a response reports besides its text, beyond OpenAI's API."""

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
        description="as in vLLM; at most 65,536 log probabilities for one prompt",
    )
    logprob_token_ids: Annotated[list[TokenId], Field(max_length=MAX_LOGPROB_TOKEN_IDS)] | None = Field(
        None, description="in `logprobs`, these tokens instead of the most likely"
    )
    skip_special_tokens: bool | None = Field(
        None, description="false: control tokens are written out in the text"
    )

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        """``logprobs`` is a boolean in chat completions, and a number that may be 0 in plain completions."""
        asked = getattr(self, "logprobs", None)
        if self.logprob_token_ids and (asked is None or asked is False):
            raise conflict("logprob_token_ids", "is only allowed when 'logprobs' is given")
        return self

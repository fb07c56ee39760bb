"""``POST /tokenize`` and ``POST /detokenize``, named as vLLM names them."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from gemma_gateway.schema.base import Only, Strict, clash
from gemma_gateway.schema.details import TokenId
from gemma_gateway.schema.messages import Conversation, check_calls
from gemma_gateway.schema.template import Templated
from gemma_gateway.schema.tools import Tool
from gemma_wire.messages import MAX_TOOLS


class TokenizeRequest(Templated):
    """A prompt or a conversation, to be counted and told as tokens."""

    model: str | None = None
    prompt: str | None = None
    messages: Conversation | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    add_special_tokens: bool | None = Field(
        None, description="of a prompt: whether its first token begins it"
    )
    return_token_strs: bool | None = None
    mm_processor_kwargs: Annotated[Any, Only()] = None

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise clash("prompt", "and 'messages': give exactly one of them")
        if self.messages is not None:
            check_calls(self.messages)
        self.check_turns(self.messages)
        if self.messages is None:
            if self.tools:
                raise clash("tools", "is only allowed beside 'messages'")
            return self
        if self.add_special_tokens:
            raise clash(
                "add_special_tokens", "is only allowed beside 'prompt': a conversation has them already"
            )
        return self


class TokenizeResponse(BaseModel):
    """The tokens."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Strict):
    """Tokens, to be told as text."""

    model: str | None = None
    tokens: list[TokenId]


class DetokenizeResponse(BaseModel):
    """The text."""

    prompt: str

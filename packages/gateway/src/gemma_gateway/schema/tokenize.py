"""``POST /tokenize`` and ``POST /detokenize``, with vLLM's names."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from gemma_gateway.schema.chat_template_options import ChatTemplateParams
from gemma_gateway.schema.messages import ChatMessages, check_calls
from gemma_gateway.schema.output_details import TokenId
from gemma_gateway.schema.strict_model import StrictModel, Unsupported, conflict
from gemma_gateway.schema.tools import AnyTool
from gemma_wire.messages import MAX_TOOLS


class TokenizeRequest(ChatTemplateParams):
    """A prompt or a conversation to tokenize."""

    model: str | None = None
    prompt: str | None = None
    messages: ChatMessages | None = None
    tools: Annotated[list[AnyTool], Field(max_length=MAX_TOOLS)] | None = None
    add_special_tokens: bool | None = Field(
        None, description="with `prompt`: whether to begin with the BOS token"
    )
    return_token_strs: bool | None = None
    mm_processor_kwargs: Annotated[Any, Unsupported()] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise conflict("prompt", "and 'messages': give exactly one of them")
        if self.messages is not None:
            check_calls(self.messages)
        self.check_turns(self.messages)
        if self.messages is None:
            if self.tools:
                raise conflict("tools", "is only allowed with 'messages'")
            return self
        if self.add_special_tokens:
            raise conflict(
                "add_special_tokens", "is only allowed with 'prompt': a conversation always has them"
            )
        return self


class TokenizeResponse(BaseModel):
    """The tokens."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(StrictModel):
    """Tokens to convert to text."""

    model: str | None = None
    tokens: list[TokenId]


class DetokenizeResponse(BaseModel):
    """The text."""

    prompt: str

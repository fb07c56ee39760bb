"""What a chat response contains, as its request asks for it."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gemma_wire as wire
from gemma_gateway.logprobs import is_large, to_prompt_logprobs
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.worker_thread import in_thread


@dataclass(frozen=True)
class ChatResponseFormat:
    """The options of a request that decide what its response contains.

    Args:
        base: its id and other common fields.
        n: the number of choices.
        empty_content: the content of a choice without text: null where there may be tool calls instead.
        logprobs: log probabilities are reported.
        include_usage: a stream ends with the token counts.
        service_tier: reported only if the request names one.
        continuous_usage: each chunk of a stream reports the token counts of its choice so far.
        token_ids: the ids of the prompt's and the new tokens are reported.
        as_ids: log probabilities name tokens by their ids.
        prompt_logprobs: the number of alternatives that are reported for each token of the prompt; ``None``:
            nothing is reported.
    """

    base: ResponseBase
    n: int = 1
    empty_content: Literal[""] | None = ""
    logprobs: bool = False
    include_usage: bool = False
    service_tier: Literal["default"] | None = None
    continuous_usage: bool = False
    token_ids: bool = False
    as_ids: bool = False
    prompt_logprobs: int | None = None

    @staticmethod
    def of(body: ChatRequest, base: ResponseBase) -> "ChatResponseFormat":
        """The format of the response to a request."""
        tier: Literal["default"] | None = "default" if body.service_tier else None
        empty: Literal[""] | None = None if body.callable_names else ""
        return ChatResponseFormat(
            base=base,
            n=body.n or 1,
            empty_content=empty,
            logprobs=bool(body.logprobs),
            include_usage=body.include_usage,
            service_tier=tier,
            continuous_usage=body.continuous_usage,
            token_ids=bool(body.return_token_ids),
            as_ids=bool(body.return_tokens_as_token_ids),
            prompt_logprobs=body.prompt_logprobs,
        )

    @property
    def common_fields(self) -> dict[str, Any]:
        """The fields that every chunk repeats."""
        tier = {"service_tier": self.service_tier} if self.service_tier else {}
        return {**vars(self.base), **tier}

    async def prompt_fields(self, first: wire.Chunk) -> dict[str, Any]:
        """The fields about the prompt, taken from the engine's first chunk."""
        work = partial(self._prompt_fields, first)
        return await in_thread(work) if is_large(first.prompt_logprobs) else work()

    def _prompt_fields(self, first: wire.Chunk) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.token_ids:
            fields["prompt_token_ids"] = list(first.prompt_token_ids)
        if self.prompt_logprobs is not None and first.prompt_logprobs is not None:
            fields["prompt_logprobs"] = to_prompt_logprobs(first.prompt_logprobs, self.prompt_logprobs)
        return fields

"""The number of tokens of a response."""

from openai.types import CompletionUsage
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails

import gemma_wire as wire


def to_openai_usage(usage: wire.Usage) -> CompletionUsage:
    """Token counts in OpenAI's form."""
    details: dict[str, CompletionTokensDetails] = {}
    if usage.accepted_prediction_tokens is not None:
        details["completion_tokens_details"] = CompletionTokensDetails(
            accepted_prediction_tokens=usage.accepted_prediction_tokens,
            rejected_prediction_tokens=usage.rejected_prediction_tokens,
        )
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        **details,
    )

"""The number of tokens of a response."""

from openai.types import CompletionUsage
from openai.types.completion_usage import PromptTokensDetails

import gemma_wire as wire


def to_openai_usage(usage: wire.Usage) -> CompletionUsage:
    """Token counts in OpenAI's form."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )

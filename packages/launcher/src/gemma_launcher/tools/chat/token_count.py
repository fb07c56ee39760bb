"""Counts the tokens of a chat with the ``/tokenize`` endpoint of vLLM and of our gateway."""

from collections.abc import Sequence
from typing import Any

import httpx
import openai


def count_tokens(client: openai.OpenAI, model: str, messages: Sequence[Any]) -> str:
    """How many tokens the messages have, and how many fit; empty if the server does not say."""
    url = str(client.base_url).rstrip("/").removesuffix("/v1") + "/tokenize"
    body = {"model": model, "messages": list(messages), "add_generation_prompt": True}
    try:
        counted = client.post(url, body=body, cast_to=httpx.Response).json()
        count, limit = counted["count"], counted.get("max_model_len")
        return f"this chat: {count:,} tokens" + (f" of {limit:,}" if limit else "")
    except (openai.OpenAIError, httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return ""

"""Counts prompt tokens with the server's ``/tokenize`` endpoint, which vLLM and our gateway provide."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from gemma_launcher.tools.api_client import is_local
from gemma_launcher.tools.bench.prompts import TokenCounter

TIMEOUT_S = 10.0


@contextmanager
def token_counter(url: str, model: str, images: int = 0) -> Iterator[TokenCounter]:
    """Counts the tokens of a user message, including the chat template.

    Args:
        url: base URL with ``/v1``; ``/tokenize`` is next to it or below it.
        model: one of the server's models.
        images: images per message; their tokens cannot be counted, so nothing is.

    Yields:
        A function that always returns ``None`` after the server could not count once.
    """
    root = url.rstrip("/").removesuffix("/v1")
    endpoints = [] if images else [f"{root}/tokenize", f"{root}/v1/tokenize"]
    with httpx.Client(timeout=TIMEOUT_S, trust_env=not is_local(url)) as client:

        def count(text: str) -> int | None:
            while endpoints:
                if tokens := _count(client, endpoints[0], model, text):
                    return tokens
                endpoints.pop(0)
            return None

        yield count


def _count(client: httpx.Client, endpoint: str, model: str, text: str) -> int:
    """The number of tokens; 0 if the endpoint does not return it."""
    messages = [{"role": "user", "content": text}]
    body = {"model": model, "messages": messages, "add_generation_prompt": True}
    try:
        content = client.post(endpoint, json=body).raise_for_status().json()
        count = content.get("count", len(content.get("tokens") or ()))
    except (httpx.HTTPError, ValueError, AttributeError):
        return 0
    return count if isinstance(count, int) else 0

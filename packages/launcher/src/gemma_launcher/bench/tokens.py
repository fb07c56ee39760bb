"""Asks a server how many tokens a prompt has, in the way that vLLM's server and ours answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from gemma_launcher.bench.prompts import Count

PATIENCE_S = 10.0


@contextmanager
def counting(url: str, model: str, pictures: int = 0) -> Iterator[Count]:
    """Counts a user's message with the template around it.

    Args:
        url: with ``/v1``; ``/tokenize`` stands beside it, or below it.
        model: one of the server's.
        pictures: in each message; what they take is not asked, so nothing can be counted.

    Yields:
        A function that answers ``None`` for ever once the server could not say.
    """
    root = url.rstrip("/").removesuffix("/v1")
    places = [] if pictures else [f"{root}/tokenize", f"{root}/v1/tokenize"]
    here = (urlsplit(url).hostname or "") in ("127.0.0.1", "localhost", "::1")
    with httpx.Client(timeout=PATIENCE_S, trust_env=not here) as client:

        def count(text: str) -> int | None:
            while places:
                if counted := _ask(client, places[0], model, text):
                    return counted
                places.pop(0)
            return None

        yield count


def _ask(client: httpx.Client, place: str, model: str, text: str) -> int:
    """The count; 0 when there is none to be had."""
    messages = [{"role": "user", "content": text}]
    question = {"model": model, "messages": messages, "add_generation_prompt": True}
    try:
        answer = client.post(place, json=question).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return 0
    if not isinstance(answer, dict):
        return 0
    counted = answer.get("count", len(answer.get("tokens") or ()))
    return counted if isinstance(counted, int) else 0

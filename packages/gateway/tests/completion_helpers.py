"""Requests for plain completions, and the joining of their streams."""

from typing import Any

import httpx
from packages.gateway.tests import openai_document
from packages.gateway.tests.conftest import Step, events

from gemma_wire import Chunk, Request, Usage


def ask(prompt: Any = "Hi", **rest: Any) -> dict[str, Any]:
    return {"model": "gemma3n", "prompt": prompt, **rest}


async def post_completion(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/v1/completions", json=body)


async def answered(client: httpx.AsyncClient, body: Any) -> Any:
    response = await post_completion(client, body)
    assert response.status_code == 200, response.text
    openai_document.assert_valid(response.json(), "CreateCompletionResponse")
    return response.json()


async def streamed(client: httpx.AsyncClient, body: Any) -> list[Any]:
    """The events without ``[DONE]``, checked against the document, except for ``finish_reason`` null."""
    *chunks, done = events(await post_completion(client, body))
    assert done == "[DONE]"
    for chunk in chunks:
        ended = [choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
        used = (
            {}
            if chunk.get("usage")
            else {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
        )
        openai_document.assert_valid(chunk | {"choices": ended} | used, "CreateCompletionResponse")
    return chunks


def said(answer: Any) -> list[tuple[int, str, str]]:
    return [(one["index"], one["text"], one["finish_reason"]) for one in answer["choices"]]


def joined(chunks: list[Any]) -> list[tuple[int, str, str]]:
    """The stream joined, as a client does it."""
    texts: dict[int, str] = {}
    finish: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        if choice["finish_reason"]:
            finish[choice["index"]] = choice["finish_reason"]
    return [(index, texts[index], finish[index]) for index in sorted(texts)]


def prompt_of(request: Request) -> str | tuple[int, ...] | None:
    return request.prompt if request.options.prompt_token_ids is None else request.options.prompt_token_ids


def by_prompt(request: Request) -> list[Step]:
    """Two choices of each prompt; the second one begins first."""
    usage = Usage(prompt_tokens=len(request.prompt or ""), completion_tokens=4, cached_tokens=1)
    return [
        Chunk(text=f"{request.prompt}1", index=1, finish_reason="length"),
        Chunk(text=f"{request.prompt}0"),
        Chunk(finish_reason="stop", usage=usage),
    ]

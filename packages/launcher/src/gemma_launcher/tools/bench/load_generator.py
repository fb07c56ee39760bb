"""Generates load: concurrent clients, each of which sends its next request when the last one has ended."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai

from gemma_launcher.tools.api_client import RequestFailed, error_message, to_command_error
from gemma_launcher.tools.bench.metrics import LoadLevelResult, RequestResult, summarize
from gemma_launcher.tools.bench.prompts import make_messages

NO_USAGE = "the server sent no usage, so tokens cannot be counted"


@dataclass(frozen=True)
class Workload:
    """The requests to send.

    Args:
        model: name of the model.
        max_tokens: of each response.
        images: in each request.
        body: further fields of each request.
    """

    model: str
    max_tokens: int
    images: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)


async def warm_up(client: openai.AsyncOpenAI, workload: Workload, text: str) -> tuple[Workload, list[str]]:
    """Sends one request, and finds out whether the server supports ``ignore_eos``.

    Returns:
        The workload, with ``ignore_eos`` if it is supported, and notes for the report.

    Raises:
        RequestFailed: the request failed.
    """
    forced = Workload(
        workload.model, workload.max_tokens, workload.images, {"ignore_eos": True, **workload.body}
    )
    result = await send_request(client, forced, text)
    if not result.error:
        short = result.completion_tokens < workload.max_tokens
        return forced, ["the server ends responses early despite ignore_eos"] if short else []
    plain = await send_request(client, workload, text)
    if plain.error:
        raise RequestFailed(f"the warm-up request failed: {plain.error}")
    return workload, ["the server rejects ignore_eos: responses end where the model ends them"]


async def run_load_level(
    client: openai.AsyncOpenAI,
    workload: Workload,
    clients: int,
    texts: tuple[str, ...],
    on_request: Callable[[], None],
) -> LoadLevelResult:
    """Runs one load level.

    Args:
        client: of the server.
        workload: what to send.
        clients: concurrent clients.
        texts: the prompts, one per request.
        on_request: called after each request.
    """
    waiting = iter(texts)
    used = time.process_time()
    each = await asyncio.gather(*(_client(client, workload, waiting, on_request) for _ in range(clients)))
    results = [result for results in each for result in results]
    return summarize(clients, results, time.process_time() - used)


async def _client(
    client: openai.AsyncOpenAI, workload: Workload, waiting: Iterator[str], on_request: Callable[[], None]
) -> list[RequestResult]:
    results = []
    for text in waiting:  # shared by all clients
        results.append(await send_request(client, workload, text))
        on_request()
    return results


async def send_request(client: openai.AsyncOpenAI, workload: Workload, text: str) -> RequestResult:
    """Sends one request; a failure is recorded in the result."""
    content: Any = make_messages(text, workload.images, random.Random(text))
    result = RequestResult(time.perf_counter())
    try:
        await _stream(client, workload, content, result)
        if not result.completion_tokens:
            result.error = NO_USAGE
        elif not result.chunk_times:
            result.error = "the response has no text"
    except openai.APIStatusError as error:
        result.error = f"{error.status_code}: {error_message(error)}"
    except (openai.OpenAIError, OSError) as error:
        result.error = str(to_command_error(error, str(client.base_url)))
    result.ended_at = time.perf_counter()
    return result


async def _stream(
    client: openai.AsyncOpenAI, workload: Workload, content: Any, result: RequestResult
) -> None:
    stream = await client.chat.completions.create(
        model=workload.model,
        messages=content,
        max_tokens=workload.max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=dict(workload.body),
    )
    async for chunk in stream:
        if any(choice.delta and choice.delta.content for choice in chunk.choices):
            result.chunk_times.append(time.perf_counter())
        if chunk.usage:
            result.prompt_tokens = chunk.usage.prompt_tokens
            result.completion_tokens = chunk.usage.completion_tokens

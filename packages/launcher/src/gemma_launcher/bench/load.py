"""Puts load on a server: so many clients, each sending its next request when the last is answered."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai

from gemma_launcher.bench.figures import Answer, Level, summarise
from gemma_launcher.bench.prompts import messages
from gemma_launcher.endpoint import CannotAnswer, explained, said

REFUSED = "the server sent no usage, so its tokens cannot be counted"


@dataclass(frozen=True)
class Load:
    """What is sent.

    Args:
        model: which model is asked.
        max_tokens: of each answer.
        pictures: in each request.
        body: more fields of each request.
    """

    model: str
    max_tokens: int
    pictures: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)


async def warm_up(client: openai.AsyncOpenAI, load: Load, text: str) -> tuple[Load, list[str]]:
    """Sends one request, which also shows what the server accepts.

    Returns:
        The load with ``ignore_eos`` where that is accepted, and notes for the report.

    Raises:
        CannotAnswer: the server does not answer.
    """
    forced = Load(load.model, load.max_tokens, load.pictures, {"ignore_eos": True, **load.body})
    answer = await ask(client, forced, text)
    if not answer.error:
        short = answer.completion_tokens < load.max_tokens
        return forced, ["the server ends answers early, in spite of ignore_eos"] if short else []
    plain = await ask(client, load, text)
    if plain.error:
        raise CannotAnswer(f"the warm-up request failed: {plain.error}")
    return load, ["the server refuses ignore_eos: answers end where the model ends them"]


async def run(
    client: openai.AsyncOpenAI, load: Load, clients: int, texts: tuple[str, ...], tick: Callable[[], None]
) -> Level:
    """The figures of one level of load.

    Args:
        client: of the server.
        load: what is sent.
        clients: so many at once.
        texts: one for each request.
        tick: called after each request.
    """
    waiting = iter(texts)
    used = time.process_time()
    each = await asyncio.gather(*(_client(client, load, waiting, tick) for _ in range(clients)))
    answers = [answer for answers in each for answer in answers]
    return summarise(clients, answers, time.process_time() - used)


async def _client(
    client: openai.AsyncOpenAI, load: Load, waiting: Iterator[str], tick: Callable[[], None]
) -> list[Answer]:
    answers = []
    for text in waiting:  # all clients take from one iterator
        answers.append(await ask(client, load, text))
        tick()
    return answers


async def ask(client: openai.AsyncOpenAI, load: Load, text: str) -> Answer:
    """One request; what goes wrong is noted in the answer."""
    content: Any = messages(text, load.pictures, random.Random(text))
    answer = Answer(time.perf_counter())
    try:
        await _stream(client, load, content, answer)
        if not answer.completion_tokens:
            answer.error = REFUSED
        elif not answer.pieces:
            answer.error = "the answer has no text"
    except openai.APIStatusError as error:
        answer.error = f"{error.status_code}: {said(error)}"
    except (openai.OpenAIError, OSError) as error:
        answer.error = str(explained(error, str(client.base_url)))
    answer.ended = time.perf_counter()
    return answer


async def _stream(client: openai.AsyncOpenAI, load: Load, content: Any, answer: Answer) -> None:
    stream = await client.chat.completions.create(
        model=load.model,
        messages=content,
        max_tokens=load.max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=dict(load.body),
    )
    async for chunk in stream:
        if any(choice.delta and choice.delta.content for choice in chunk.choices):
            answer.pieces.append(time.perf_counter())
        if chunk.usage:
            answer.prompt_tokens = chunk.usage.prompt_tokens
            answer.completion_tokens = chunk.usage.completion_tokens

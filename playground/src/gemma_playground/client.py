"""The server, as the playground sees it: a question goes out, a growing answer comes back."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

from gemma_playground.settings import Settings

PACE: Final = 0.1
"""Seconds between two looks at an answer: each goes to the browser, and finds out whether it is there."""

BROKEN: Final = "The connection to the server broke in the middle of the answer. Retry asks again."


@dataclass
class Call:
    """A function that the model wants called, its arguments as JSON text."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Answer:
    """What has come so far; ``error`` is a sentence, and what came before it stays."""

    begun: float = field(default_factory=time.monotonic)
    first: float | None = None
    last: float | None = None
    text: str = ""
    calls: dict[int, Call] = field(default_factory=dict)
    tokens: list[ChatCompletionTokenLogprob] = field(default_factory=list)
    usage: CompletionUsage | None = None
    finish_reason: str = ""
    error: str = ""

    @property
    def ttft(self) -> float | None:
        """Seconds until the first token."""
        return None if self.first is None else self.first - self.begun

    @property
    def speed(self) -> float | None:
        """Tokens per second after the first."""
        if self.usage is None or self.first is None or self.last is None or self.last <= self.first:
            return None
        return (self.usage.completion_tokens - 1) / (self.last - self.first)

    def take(self, chunk: ChatCompletionChunk) -> None:
        """Adds one piece of the stream."""
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
            self.text += choice.delta.content or choice.delta.refusal or ""
            for part in choice.delta.tool_calls or ():
                self._call(part)
            if choice.logprobs is not None:
                self.tokens += choice.logprobs.content or ()
            if choice.delta.content or choice.delta.tool_calls:
                self.last = time.monotonic()
                self.first = self.first or self.last

    def _call(self, part: ChoiceDeltaToolCall) -> None:
        call = self.calls.setdefault(part.index, Call())
        call.id = part.id or call.id
        if part.function is not None:
            call.name += part.function.name or ""
            call.arguments += part.function.arguments or ""


class Client:
    """One connection pool for every tab."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._openai = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key or "none",
            max_retries=0,
            timeout=openai.Timeout(600, connect=5),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._openai.close()

    async def models(self) -> list[str]:
        """Names of the models that are served.

        Raises:
            openai.APIError: the server does not answer, or refuses.
        """
        return [model.id for model in (await self._openai.models.list(timeout=5)).data]

    async def ask(self, request: dict[str, Any]) -> AsyncGenerator[Answer, None]:
        """The same growing answer, again and again until it is whole or failed; whoever leaves ends it.

        Without a model in it, the request gets the server's first.
        """
        answer = Answer()
        filling = asyncio.create_task(self._fill(answer, request))
        try:
            done: set[asyncio.Task[None]] = set()
            while not done:  # What ends while somebody looks at it is looked at once more.
                done, _ = await asyncio.wait({filling}, timeout=PACE)
                yield answer
        finally:
            filling.cancel()
            await asyncio.wait({filling})

    async def _fill(self, answer: Answer, request: dict[str, Any]) -> None:
        try:
            request["model"] = request["model"] or (await self.models())[0]
            usage = {"include_usage": True}
            create: Any = self._openai.chat.completions.create  # Its overloads know no request as a whole.
            stream = await create(**request, stream=True, stream_options=usage)
            async with stream:
                async for chunk in stream:
                    answer.take(chunk)
            if not answer.finish_reason:
                answer.error = BROKEN
        except Exception as error:  # Whatever it is, the reader is told.
            broken = answer.first is not None and isinstance(
                error, (openai.APIConnectionError, httpx.HTTPError)
            )
            answer.error = BROKEN if broken else self.sentence(error)

    def sentence(self, error: Exception) -> str:
        """What went wrong, for a reader: the server's own words where there are any."""
        if isinstance(error, (openai.APIConnectionError, httpx.HTTPError)):
            return f"The server at {self._settings.base_url} does not answer. Is it running?"
        if isinstance(error, openai.APIStatusError):
            return f"{_words(error)} (HTTP {error.status_code})"
        if isinstance(error, openai.APIError):
            return _words(error)
        return f"The server's answer is not what a chat completion looks like: {error}"


def _words(error: openai.APIError) -> str:
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and body.get("message") else error.message

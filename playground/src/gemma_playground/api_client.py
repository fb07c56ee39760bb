"""The client of the OpenAI-compatible server: streams responses and reads the server's status."""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice

UPDATE_INTERVAL_S: Final = 0.1
"""Seconds between two updates of a response in the browser; each also detects whether it disconnected."""
CONNECTION_LOST: Final = (
    "The connection to the server was lost before the response was complete. Retry sends the message again."
)
CHUNK_COUNTERS: Final = "(?:inter_token_latency|time_to_first_token)_seconds_count"
"""Metrics that count chunks while they are sent; token metrics are updated when a response is complete."""
HEALTH_FIELDS: Final = ("running", "waiting", "context_length", "device", "dtype", "engine", "max_num_seqs")
"""Fields of the gateway's ``/health`` that are shown."""


Chunks = AsyncGenerator[ChatCompletionChunk, None]


@dataclass
class ChatResponse:
    """A response as received so far; ``error`` is a sentence, and the text before the error is kept."""

    started: float = field(default_factory=time.monotonic)
    first: float = 0.0
    last: float = 0.0
    error: str = ""
    completion: ChatCompletion | None = None
    choice: Choice | None = None
    _state: ChatCompletionStreamState[None] = field(default_factory=ChatCompletionStreamState, repr=False)

    def add_chunk(self, chunk: ChatCompletionChunk) -> None:
        """Adds a chunk of the stream."""
        self._state.handle_chunk(chunk)
        self.completion = self._state.current_completion_snapshot
        self.choice = next(iter(self.completion.choices), None)
        if any(choice.delta.content or choice.delta.tool_calls for choice in chunk.choices):
            self.last = time.monotonic()
            self.first = self.first or self.last

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The assistant message in OpenAI's format; empty before the first token."""
        message = self.choice and self.choice.message
        text = (message and (message.content or message.refusal)) or ""
        included: Any = {"id": True, "type": True, "function": {"name": True, "arguments": True}}
        calls = [call.model_dump(include=included) for call in (message and message.tool_calls) or ()]
        result = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
        return [result] if text or calls else []


class ApiClient:
    """One connection pool for all tabs, and the server's status as of the last ``refresh``.

    Args:
        base_url: ends with ``/v1``.
        api_key: "" sends none.
        clock: monotonic time, seconds.
    """

    def __init__(self, base_url: str, api_key: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.base_url, self._clock = base_url, clock
        self.state = "connecting"
        self.models: list[str] = []
        self.facts: dict[str, Any] = {"server": base_url, "health": "Connecting to the server …"}
        self.speeds: deque[tuple[float, float]] = deque(maxlen=120)
        self._lock, self._refreshed, self._chunks = asyncio.Lock(), 0.0, 0
        key, timeout = api_key or "none", openai.Timeout(600, connect=5)
        self._openai = openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=timeout)
        self._root = self._openai.with_options(base_url=base_url.rstrip("/").removesuffix("/v1"), timeout=3)
        self.close = self._openai.close

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[ChatResponse, None]:
        """Yields the same growing response until it is complete or failed; ``aclose`` cancels it."""
        async with aclosing(self._grow(partial(self._chat_chunks, request))) as growing:
            async for response in growing:
                yield response

    async def transcribe(self, model: str, suffix: str, file: bytes) -> AsyncGenerator[ChatResponse, None]:
        """As ``stream``, with the transcript of an audio file as the response."""
        async with aclosing(self._grow(partial(self._transcript_chunks, model, suffix, file))) as growing:
            async for response in growing:
                yield response

    async def _grow(self, chunks: Callable[[], Chunks]) -> AsyncGenerator[ChatResponse, None]:
        response = ChatResponse()
        task = asyncio.create_task(self._fill(response, chunks))
        try:
            done: set[asyncio.Task[None]] = set()
            while not done:  # the completed response is yielded once more
                done, _ = await asyncio.wait({task}, timeout=UPDATE_INTERVAL_S)
                yield response
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _chat_chunks(self, request: dict[str, Any]) -> Chunks:
        create: Any = self._openai.chat.completions.create  # The overloads do not accept a dictionary.
        async with await create(**request, stream_options={"include_usage": True}) as stream:
            async for chunk in stream:
                yield chunk

    async def _transcript_chunks(self, model: str, suffix: str, file: bytes) -> Chunks:
        """The events of a transcription as chunks of a chat response."""
        create = self._openai.audio.transcriptions.create
        named, began = (f"recording.{suffix}", file), int(time.time())
        async with await create(file=named, model=model, response_format="json", stream=True) as stream:
            async for event in stream:
                done = event.type == "transcript.text.done"
                text = event.delta if event.type == "transcript.text.delta" else ""
                delta = {"role": "assistant", "content": text}
                choice = {"index": 0, "delta": delta, "finish_reason": "stop" if done else None}
                usage = _chat_usage(event.usage) if event.type == "transcript.text.done" else None
                head = {
                    "id": "transcript",
                    "object": "chat.completion.chunk",
                    "created": began,
                    "model": model,
                }
                yield ChatCompletionChunk.model_validate({**head, "choices": [choice], "usage": usage})

    async def _fill(self, response: ChatResponse, chunks: Callable[[], Chunks]) -> None:
        try:
            async with aclosing(chunks()) as received:
                async for chunk in received:
                    response.add_chunk(chunk)
            response.error = "" if response.choice and response.choice.finish_reason else CONNECTION_LOST
        except Exception as error:  # Shown to the user.
            lost = isinstance(error, (openai.APIConnectionError, httpx.HTTPError))
            response.error = CONNECTION_LOST if lost and response.first else self.describe_error(error)

    def describe_error(self, error: Exception) -> str:
        """The error as a sentence for the user; the server's own message if there is one."""
        if isinstance(error, (openai.APIConnectionError, httpx.HTTPError)):
            return f"The server at {self.base_url} does not respond. Is it running?"
        if not isinstance(error, openai.APIError):
            return f"The server's response is not a valid chat completion: {error}"
        own = error.body.get("message") if isinstance(error.body, dict) else None
        status = f" (HTTP {error.status_code})" if isinstance(error, openai.APIStatusError) else ""
        return f"{own or error.message}{status}"

    async def refresh(self) -> None:
        """Reads the server's status, at most once a second for all tabs."""
        async with self._lock:
            if (seconds := self._clock() - self._refreshed) < 1:
                return
            self._refreshed += seconds
            facts: dict[str, Any] = {"server": self.base_url, "health": "The server is ready."}
            try:
                self.models = [model.id for model in (await self._openai.models.list(timeout=5)).data]
                health, metrics = await self._get_text("/health"), await self._get_text("/metrics")
            except Exception as error:  # Shown on the page.
                self.state, self.models = "down", []
                self.facts = facts | {"health": self.describe_error(error)}
                return
            before, self._chunks = self._chunks, _sum(CHUNK_COUNTERS, metrics) or 0
            speed = round((self._chunks - before) / seconds, 1) if self._chunks >= before > 0 else None
            self.speeds += [(self._refreshed, speed)] if speed is not None else []
            facts |= {"models": ", ".join(self.models), "tokens/s now": speed}
            facts |= {name: _sum(f"num_requests_{name}", metrics) for name in ("running", "waiting")}
            with suppress(ValueError, TypeError):  # Other servers have another /health, or none.
                status = json.loads(health)
                facts |= {name.replace("_", " "): status[name] for name in HEALTH_FIELDS if name in status}
            self.state, self.facts = "ready", facts

    def plot(self) -> dict[str, Any]:
        """Tokens per second at the last refreshes, as data of a Gradio plot."""
        data = [(round(at - self._refreshed), speed) for at, speed in self.speeds] or [(-1, 0), (0, 0)]
        kinds = dict.fromkeys(("seconds", "tokens/s"), "quantitative")
        return {"columns": list(kinds), "data": data, "datatypes": kinds, "mark": "line"}

    async def _get_text(self, path: str) -> str:
        """The text of a page outside ``/v1``; empty if there is none."""
        try:
            return (await self._root.get(path, cast_to=httpx.Response)).text
        except openai.APIStatusError as error:
            if error.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                raise
            return ""


def _chat_usage(usage: Any) -> dict[str, int] | None:
    """The token counts of a transcription as those of a chat response."""
    if usage is None:
        return None
    counts = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
    return {**counts, "total_tokens": usage.total_tokens}


def _sum(name: str, metrics: str) -> int | None:
    """The sum over all labels of a metric in Prometheus's text format; ``None`` if it is missing."""
    found = re.findall(rf"^\S*{name}(?:\{{.*\}})? (\S+)", metrics, re.MULTILINE)
    return int(sum(map(float, found))) if found else None

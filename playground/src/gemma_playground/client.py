"""The server, as the playground sees it: a question goes out, a growing answer comes back."""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice

PACE: Final = 0.1
"""Seconds between two looks at an answer: each goes to the browser, and finds out whether it is there."""
BROKEN: Final = "The connection to the server broke in the middle of the answer. Retry asks again."
PIECES: Final = "(?:inter_token_latency|time_to_first_token)_seconds_count"
"""The metrics that count pieces as they pass; those of tokens are told when an answer is whole."""
KNOWN: Final = ("running", "waiting", "context_length", "device", "dtype", "engine", "max_num_seqs")
"""What a server may say of itself."""


@dataclass
class Answer:
    """What has come so far; ``error`` is a sentence, and what came before it stays."""

    begun: float = field(default_factory=time.monotonic)
    first: float = 0.0
    last: float = 0.0
    error: str = ""
    whole: ChatCompletion | None = None
    choice: Choice | None = None
    _pieces: ChatCompletionStreamState[None] = field(default_factory=ChatCompletionStreamState, repr=False)

    def take(self, chunk: ChatCompletionChunk) -> None:
        """Adds one piece of the stream."""
        self._pieces.handle_chunk(chunk)
        self.whole = self._pieces.current_completion_snapshot
        self.choice = next(iter(self.whole.choices), None)
        if any(choice.delta.content or choice.delta.tool_calls for choice in chunk.choices):
            self.last = time.monotonic()
            self.first = self.first or self.last

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What the model says, as OpenAI has it: one message, or none before the first token."""
        said = self.choice and self.choice.message
        text = (said and (said.content or said.refusal)) or ""
        wanted: Any = {"id": True, "type": True, "function": {"name": True, "arguments": True}}
        calls = [call.model_dump(include=wanted) for call in (said and said.tool_calls) or ()]
        message = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
        return [message] if text or calls else []


class Client:
    """One connection pool for every tab; ``state`` and the rest are what the last look found."""

    def __init__(self, base_url: str, api_key: str = "") -> None:
        self.base_url = base_url
        self.state = "asking"
        self.models: list[str] = []
        self.facts: dict[str, Any] = {"server": base_url, "health": "Asking the server …"}
        self.speeds: deque[tuple[float, float]] = deque(maxlen=120)
        self._lock, self._seen, self._pieces = asyncio.Lock(), 0.0, 0
        key, timeout = api_key or "none", openai.Timeout(600, connect=5)
        self._openai = openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=timeout)
        self._root = self._openai.with_options(base_url=base_url.rstrip("/").removesuffix("/v1"), timeout=3)
        self.close = self._openai.close

    async def ask(self, request: dict[str, Any]) -> AsyncGenerator[Answer, None]:
        """The same growing answer, again and again until it is whole or failed; whoever leaves ends it."""
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
        create: Any = self._openai.chat.completions.create  # Its overloads know no request as a whole.
        try:
            async with await create(**request, stream_options={"include_usage": True}) as stream:
                async for chunk in stream:
                    answer.take(chunk)
            answer.error = "" if answer.choice and answer.choice.finish_reason else BROKEN
        except Exception as error:  # Whatever it is, the reader is told.
            lost = isinstance(error, (openai.APIConnectionError, httpx.HTTPError))
            answer.error = BROKEN if lost and answer.first else self.sentence(error)

    def sentence(self, error: Exception) -> str:
        """What went wrong, for a reader: the server's own words where there are any."""
        if isinstance(error, (openai.APIConnectionError, httpx.HTTPError)):
            return f"The server at {self.base_url} does not answer. Is it running?"
        if not isinstance(error, openai.APIError):
            return f"The server's answer is not what a chat completion looks like: {error}"
        own = error.body.get("message") if isinstance(error.body, dict) else None
        status = f" (HTTP {error.status_code})" if isinstance(error, openai.APIStatusError) else ""
        return f"{own or error.message}{status}"

    async def look(self) -> None:
        """Sees how the server is, at most once a second however many tabs look."""
        async with self._lock:
            if (seconds := time.monotonic() - self._seen) < 1:
                return
            self._seen += seconds
            facts: dict[str, Any] = {"server": self.base_url, "health": "The server is ready."}
            try:
                self.models = [model.id for model in (await self._openai.models.list(timeout=5)).data]
                health, metrics = await self._page("/health"), await self._page("/metrics")
            except Exception as error:  # Whatever it is, the page tells.
                self.state, self.models = "down", []
                self.facts = facts | {"health": self.sentence(error)}
                return
            before, self._pieces = self._pieces, _sum(PIECES, metrics) or 0
            speed = round((self._pieces - before) / seconds, 1) if self._pieces >= before > 0 else None
            self.speeds += [(self._seen, speed)] if speed is not None else []
            facts |= {"models": ", ".join(self.models), "tokens/s now": speed}
            facts |= {name: _sum(f"num_requests_{name}", metrics) for name in ("running", "waiting")}
            with suppress(ValueError, TypeError):  # Other servers say other things of their health.
                told = json.loads(health)
                facts |= {name.replace("_", " "): told[name] for name in KNOWN if name in told}
            self.state, self.facts = "ready", facts

    def plot(self) -> dict[str, Any]:
        """Tokens per second of the last looks, as Gradio's plots want them."""
        data = [(round(at - self._seen), speed) for at, speed in self.speeds] or [(-1, 0), (0, 0)]
        kinds = dict.fromkeys(("seconds", "tokens/s"), "quantitative")
        return {"columns": list(kinds), "data": data, "datatypes": kinds, "mark": "line"}

    async def _page(self, path: str) -> str:
        """A page beside the API, empty where there is none."""
        try:
            return (await self._root.get(path, cast_to=httpx.Response)).text
        except openai.APIStatusError as error:
            if error.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                raise
            return ""


def _sum(name: str, metrics: str) -> int | None:
    """Over all labels of a metric in Prometheus's text; nothing where there is none."""
    found = re.findall(rf"^\S*{name}(?:\{{.*\}})? (\S+)", metrics, re.MULTILINE)
    return int(sum(map(float, found))) if found else None

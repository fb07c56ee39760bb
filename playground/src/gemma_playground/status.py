"""How the server is, asked at most once a second however many tabs look."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import openai

from gemma_playground.client import Client
from gemma_playground.settings import Settings

FRESH: Final = 1.0
"""Seconds for which a look is believed."""
_PIECES: Final = re.compile(
    r"^\S*(?:inter_token_latency|time_to_first_token)_seconds_count(?:\{.*\})? (\S+)", re.MULTILINE
)
_RUNNING: Final = re.compile(r"^\S*num_requests_running(?:\{.*\})? (\S+)", re.MULTILINE)
_WAITING: Final = re.compile(r"^\S*num_requests_waiting(?:\{.*\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class State:
    """One look at the server; ``told`` is what it says about itself."""

    ready: bool = False
    sentence: str = "Asking the server …"
    models: tuple[str, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    running: float | None = None
    waiting: float | None = None
    speed: float | None = None


class Status:
    """Remembers the last look, and the last minutes' tokens per second."""

    def __init__(self, settings: Settings, client: Client, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._client = client
        self._now = now
        key = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._http = httpx.AsyncClient(timeout=3, headers=key)
        self._lock = asyncio.Lock()
        self._seen = -FRESH
        self._state = State()
        self._pieces: float | None = None
        self._speeds: deque[tuple[float, float]] = deque(maxlen=120)

    async def look(self) -> State:
        """How the server is now, or was within the last second."""
        async with self._lock:
            if self._now() - self._seen >= FRESH:
                self._state = await self._ask(self._now() - self._seen)
                self._seen = self._now()
            return self._state

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    def plot(self) -> dict[str, Any]:
        """Tokens per second of the last looks, as Gradio's plots want them."""
        data = [[round(at - self._now()), speed] for at, speed in self._speeds] or [[-1, 0], [0, 0]]
        columns = ["seconds", "tokens/s"]
        return {
            "columns": columns,
            "data": data,
            "datatypes": dict.fromkeys(columns, "quantitative"),
            "mark": "line",
        }

    async def _ask(self, seconds: float) -> State:
        try:
            models = tuple(await self._client.models())
            health = await self._get("/health")
            if health is not None and health.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return State(sentence=_reason(health))
        except (openai.OpenAIError, httpx.HTTPError) as error:
            self._pieces = None
            return State(sentence=self._client.sentence(error))
        told = _told(health)
        metrics = await self._get("/metrics")
        text = metrics.text if metrics is not None and metrics.is_success else ""
        return State(
            ready=True,
            sentence="The server is ready.",
            models=models,
            told=told,
            running=told.get("running", _sum(_RUNNING, text)),
            waiting=told.get("waiting", _sum(_WAITING, text)),
            speed=self._speed(_sum(_PIECES, text), seconds),
        )

    async def _get(self, path: str) -> httpx.Response | None:
        try:
            return await self._http.get(self._settings.root + path)
        except httpx.HTTPError:
            return None

    def _speed(self, pieces: float | None, seconds: float) -> float | None:
        """Pieces are counted as they pass, tokens only when an answer is whole; a restart counts from 0."""
        before, self._pieces = self._pieces, pieces
        if pieces is None or before is None or pieces < before or seconds > 10 * FRESH:
            return None
        speed = (pieces - before) / seconds
        self._speeds.append((self._now(), round(speed, 1)))
        return speed


def _sum(pattern: re.Pattern[str], text: str) -> float | None:
    found = [float(number) for number in pattern.findall(text)]
    return sum(found) if found else None


def _told(answer: httpx.Response | None) -> dict[str, Any]:
    """What a server says of its health, where it says anything: other servers have other ways."""
    try:
        told = answer.json() if answer is not None else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _reason(answer: httpx.Response) -> str:
    error = _told(answer).get("error")
    told = error.get("message") if isinstance(error, dict) else None
    return f"The server is not ready: {told or 'it does not say why.'}"

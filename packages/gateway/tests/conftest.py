"""A fake engine, and the gateway in front of it: in process, or on a real port."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import pytest
from fastapi import FastAPI

from gemma_gateway.app import create_app
from gemma_gateway.http_server.server import GatewayServer, make_server
from gemma_gateway.settings import GatewaySettings
from gemma_wire import Chunk, ModelInfo, PromptLogprobs, Request, TokenizerInfo, TokenLogprob, Tokens, Usage

MODEL = "google/gemma-3n-E4B-it"
INFO = ModelInfo(
    model=MODEL,
    created=1_700_000_000,
    engine="fake",
    device="cpu",
    dtype="float32",
    context_length=4096,
    max_num_seqs=16,
    memory_bytes=1024,
    modalities=("text", "image"),
)
END = Chunk(finish_reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=2))
Step = Chunk | Exception | asyncio.Event


class FakeEngine:
    """Plays ``script``, or what ``answer`` makes of a request: chunks, exceptions, events to wait for.

    Its tokens are characters: each one's id is its code point, and one of its own, 2, begins every text.
    """

    def __init__(self) -> None:
        self.script: list[Step] = [Chunk(text="Hello"), Chunk(text=" world"), END]
        self.answer: Callable[[Request], list[Step]] = lambda request: self.script
        self.begins: tuple[int, ...] = (2,)
        self.info: ModelInfo | Exception = INFO
        self.asked: list[Request] = []
        self.request_ids: list[str] = []
        self.described = 0
        self.running = 0
        self.closed = False

    async def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        self.request_ids.append(request_id)
        self.running += 1
        try:
            for step in self.answer(request):
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.running -= 1

    async def tokens(self, request: Request) -> Tokens:
        self.asked.append(request)
        for step in self.script:
            if isinstance(step, Exception):
                raise step
        ids = request.options.prompt_token_ids or (*self.begins, *map(ord, request.prompt or ""))
        pieces = tuple("<bos>" if token_id == 2 else chr(token_id) for token_id in ids)
        return Tokens(
            token_ids=ids,
            text="".join(pieces),
            pieces=pieces,
            context_length=INFO.context_length,
            begins=ids[0] == 2,
        )

    async def tokenizer_info(self) -> TokenizerInfo:
        return TokenizerInfo(config={"eos_token": "<eos>", "chat_template": "{{ messages }}"})

    async def describe(self) -> ModelInfo:
        self.described += 1
        if isinstance(self.info, Exception):
            raise self.info
        return self.info

    async def close(self) -> None:
        self.closed = True


def prompt_scores(*tokens: TokenLogprob, ranks: tuple[int, ...] = ()) -> PromptLogprobs:
    """Log probabilities of a prompt, whose first token has none."""
    every = {one.token_id: one for token in tokens for one in (token, *token.top)}
    return PromptLogprobs(
        token_ids=tuple(token.token_id for token in tokens),
        logprobs=tuple(token.logprob for token in tokens),
        ranks=ranks or tuple(1 for _ in tokens),
        top_ids=tuple(tuple(one.token_id for one in token.top) for token in tokens),
        top_logprobs=tuple(tuple(one.logprob for one in token.top) for token in tokens),
        texts={token_id: one.token for token_id, one in every.items()},
        utf8={token_id: one.utf8 for token_id, one in every.items() if bytes(one.utf8) != one.token.encode()},
    )


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(
        max_images=3, max_image_bytes=200_000, max_image_pixels=1_000_000, max_body_bytes=2_000_000
    )


@pytest.fixture
def app(engine: FakeEngine, settings: GatewaySettings) -> FastAPI:
    return create_app(settings, engine)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """In process. It cannot disconnect early; use ``url`` for that."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


@asynccontextmanager
async def serve(
    app: FastAPI, shutdown_seconds: float = 1, **settings: Any
) -> AsyncIterator[tuple[GatewayServer, str]]:
    """The app on a free port, in this event loop.

    Args:
        settings: of the server; those of the application are its own.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    running = make_server(app, GatewaySettings(shutdown_seconds=shutdown_seconds, **settings))
    task = asyncio.create_task(running.serve(sockets=[listener]))
    await until(lambda: running.started)
    try:
        yield running, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        await task


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """The address of a gateway on a real port."""
    async with serve(app) as (_, address):
        yield address


class Pause(asyncio.Event):
    """A step of a script that takes some time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def wait(self) -> Literal[True]:
        await asyncio.sleep(self._seconds)
        return True


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (what is waited for is not ours)
            await asyncio.sleep(0.01)


def chat(content: Any = "Hi", **rest: Any) -> dict[str, Any]:
    """The body of a chat request with one user message."""
    return {"model": "gemma3n", "messages": [{"role": "user", "content": content}], **rest}


async def post(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=body)


async def asked(client: httpx.AsyncClient, engine: FakeEngine, body: Any) -> Request:
    response = await post(client, body)
    assert response.status_code == 200, response.text
    return engine.asked[-1]


def events(response: httpx.Response) -> list[Any]:
    """The payloads of a stream, parsed, ``[DONE]`` as it is."""
    assert response.text.endswith("\n\n")
    lines = response.text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    payloads = [line.removeprefix("data: ") for line in lines]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def assert_error(response: httpx.Response, status: int, param: str | None, code: str | None) -> str:
    """Checks the error body exactly; returns the message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code), error
    assert response.headers["x-request-id"]
    return str(error["message"])


@asynccontextmanager
async def gateway(engine: FakeEngine, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway with these settings, without a socket between."""
    app = create_app(GatewaySettings(**settings), engine)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client

"""Keep-alive pings of a stream: comments that clients ignore, while the engine produces nothing."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI
from packages.gateway.tests.conftest import END, FakeEngine, Pause, chat, serve, until
from packages.gateway.tests.raw_http import connection, head
from pydantic import BaseModel

from gemma_gateway.settings import GatewaySettings
from gemma_gateway.sse import PING, open_stream
from gemma_wire import Chunk, EngineFailure, InvalidRequest

PREFILL = 0.35
"""Seconds without a chunk: several times ``sse_ping_seconds``."""


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(sse_ping_seconds=0.1)


async def stream_text(url: str, **rest: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url) as client:
        return await client.post("/v1/chat/completions", json=chat(stream=True, **rest))


async def test_a_long_prefill_and_a_long_pause_get_pings(url: str, engine: FakeEngine) -> None:
    engine.script = [Pause(PREFILL), Chunk(text="Hello"), Pause(PREFILL), Chunk(text=" world"), END]
    response = await stream_text(url)
    assert response.status_code == 200
    prefill, _, rest = response.text.partition("data: ")
    assert prefill
    assert set(prefill.removesuffix("\n\n").split("\n\n")) == {": ping"}
    assert ": ping\n\n" in rest
    assert rest.endswith("data: [DONE]\n\n")


async def test_the_sdk_ignores_pings(url: str, engine: FakeEngine) -> None:
    engine.script = [Pause(PREFILL), Chunk(text="Hello"), Pause(PREFILL), Chunk(text=" world"), END]
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as sdk:
        messages: list[Any] = [{"role": "user", "content": "Hi"}]
        chunks = [
            chunk
            async for chunk in await sdk.chat.completions.create(
                model="gemma3n", messages=messages, stream=True
            )
        ]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello world"
        texts = [
            chunk.choices[0].text
            async for chunk in await sdk.completions.create(model="gemma3n", prompt="Hi", stream=True)
        ]
    assert "".join(texts) == "Hello world"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("is wrong", "prompt"), 400, "invalid_value"),
        (EngineFailure("x"), 500, "internal_error"),
    ],
)
async def test_an_error_has_its_status_before_the_first_ping_and_is_an_event_after_it(
    url: str, engine: FakeEngine, error: Exception, status: int, code: str
) -> None:
    engine.script = [error]
    early = await stream_text(url)
    assert (early.status_code, early.json()["error"]["code"]) == (status, code)
    engine.script = [Pause(PREFILL), error]
    late = await stream_text(url)
    assert late.status_code == 200
    *pings, event = late.text.removesuffix("\n\n").split("\n\n")
    assert set(pings) == {": ping"}
    assert json.loads(event.removeprefix("data: ")) == early.json()


async def test_what_is_unknown_when_the_response_begins_is_sent_in_comments(
    url: str, engine: FakeEngine
) -> None:
    engine.script = [
        Pause(PREFILL),
        Chunk(text="[1]", unenforced=("uniqueItems",)),
        END.model_copy(update={"schema_valid": True}),
    ]
    response = await stream_text(url)
    assert "x-unenforced-keywords" not in response.headers
    comments = ": x-unenforced-keywords: uniqueItems\n\n: x-schema-valid: true\n\n"
    assert response.text.endswith(f"{comments}data: [DONE]\n\n")


async def test_a_disconnect_during_the_prefill_cancels_the_generation(url: str, engine: FakeEngine) -> None:
    engine.script = [asyncio.Event(), END]
    body = json.dumps(chat(stream=True)).encode()
    async with connection(url) as (reader, writer):
        writer.write(head(len(body)) + body)
        await reader.readuntil(PING)
        assert engine.running == 1
    await until(lambda: engine.running == 0, seconds=1)


async def test_a_request_that_takes_too_long_ends_with_an_event(engine: FakeEngine, app: FastAPI) -> None:
    from gemma_gateway.app import create_app  # noqa: PLC0415

    engine.script = [asyncio.Event(), END]
    app = create_app(GatewaySettings(sse_ping_seconds=0.1, request_seconds=0.5), engine)
    async with serve(app) as (_, url):
        response = await stream_text(url)
    assert response.status_code == 200
    assert json.loads(response.text.rpartition("data: ")[2])["error"]["code"] == "request_timeout"
    assert engine.running == 0


class Event(BaseModel):
    text: str


async def test_no_ping_is_sent_while_an_event_waits_for_the_client() -> None:
    """Pings must not pile up in front of a client that does not read."""
    sent: list[bytes] = []
    reads, blocked = asyncio.Event(), asyncio.Event()

    async def events() -> AsyncGenerator[BaseModel, None]:
        yield Event(text="a")

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            blocked.set()
            await reads.wait()

    response = await open_stream(receive, events(), ping_seconds=0.05)
    streaming = asyncio.create_task(response({"type": "http"}, receive, send))
    await blocked.wait()
    await asyncio.sleep(0.3)
    assert sent == [b'data: {"text":"a"}\n\n']
    reads.set()
    await streaming
    assert [each for each in sent if each != PING][-2:] == [b"data: [DONE]\n\n", b""]

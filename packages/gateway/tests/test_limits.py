"""Slow bodies, long requests, and concurrency limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2  # what the SDK stands on
import openai
import pytest
from packages.gateway.tests.conftest import END, FakeEngine, assert_error, chat, gateway, post, until

from gemma_gateway.app import create_app
from gemma_gateway.settings import GatewaySettings
from gemma_wire import Chunk

LIMIT, LEFT = "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"


def envelope(text: str) -> Any:
    """Of a stream's last event."""
    return json.loads(text.removesuffix("\n\n").split("\n\n")[-1].removeprefix("data: "))["error"]


async def test_a_slow_body_times_out(engine: FakeEngine) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    async with gateway(engine, body_seconds=0.2) as client:
        headers = {"content-type": "application/json"}
        response = await client.post("/v1/chat/completions", content=drip(), headers=headers)
    assert "0.2 seconds" in assert_error(response, 408, None, "request_timeout")
    assert response.headers["connection"] == "close"
    assert engine.asked == []


async def test_the_body_timeout_does_not_apply_to_the_response(engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.script = [Chunk(text="a"), gate, END]
    async with gateway(engine, body_seconds=0.1) as client:
        asking = asyncio.create_task(post(client, chat()))
        await asyncio.sleep(0.3)
        gate.set()
        assert (await asking).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_takes_too_long(engine: FakeEngine, stream: bool) -> None:
    """The generation is cancelled, and ``x-should-retry`` prevents a retry."""
    engine.script = [asyncio.Event()]
    async with gateway(engine, request_seconds=0.1) as client:
        response = await post(client, chat(stream=stream))
    assert_error(response, 408, None, "request_timeout")
    assert response.headers["x-should-retry"] == "false"
    assert engine.running == 0


async def test_a_stream_that_takes_too_long(engine: FakeEngine) -> None:
    engine.script = [Chunk(text="a"), asyncio.Event()]
    async with gateway(engine, request_seconds=1) as client:
        response = await post(client, chat(stream=True))
    assert response.status_code == 200
    assert envelope(response.text)["code"] == "request_timeout"
    assert engine.running == 0


async def test_the_sdk_does_not_retry_a_timeout(engine: FakeEngine) -> None:
    engine.script = [asyncio.Event()]
    app = create_app(GatewaySettings(request_seconds=1), engine)
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport) as client:
        sdk = openai.AsyncOpenAI(
            api_key="k", base_url="http://localhost/v1", http_client=client, max_retries=3
        )
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model="gemma3n", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.status_code == 408
    assert len(engine.asked) == 1


async def test_one_request_over_the_concurrency_limit(engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.script = [gate, END]
    async with gateway(engine, max_concurrent=2) as client:
        first = asyncio.create_task(post(client, chat()))
        await until(lambda: engine.running == 1)
        second = asyncio.create_task(post(client, chat(stream=True)))
        await until(lambda: engine.running == 2)
        refused = await post(client, chat())
        assert "2 concurrent requests" in assert_error(refused, 429, None, "rate_limit_exceeded")
        assert refused.json()["error"]["type"] == "requests"
        assert (refused.headers[LIMIT], refused.headers[LEFT]) == ("2", "0")
        assert (refused.headers["retry-after"], refused.headers["x-ratelimit-reset-requests"]) == ("1", "1s")
        assert (await client.get("/v1/models")).status_code == 200
        gate.set()
        assert [(await task).headers[LEFT] for task in (first, second)] == ["1", "0"]
        assert (await post(client, chat())).headers[LEFT] == "1"


async def test_the_concurrency_limit_is_per_key(engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.script = [gate, END]
    one, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "other"))
    async with gateway(engine, max_concurrent=1, keys="one,other") as client:
        running = asyncio.create_task(client.post("/v1/chat/completions", json=chat(), headers=one))
        await until(lambda: engine.running == 1)
        assert_error(
            await client.post("/v1/chat/completions", json=chat(), headers=one),
            429,
            None,
            "rate_limit_exceeded",
        )
        gate.set()
        assert (await client.post("/v1/chat/completions", json=chat(), headers=other)).status_code == 200
        assert (await running).status_code == 200


@pytest.mark.parametrize("body", [{}, chat(temperature=9), chat(), chat(stream=True)])
async def test_a_finished_request_frees_its_share(engine: FakeEngine, body: dict[str, Any]) -> None:
    engine.script = [Chunk(text="a"), ValueError("a bug")]
    async with gateway(engine, max_concurrent=1) as client:
        for _ in range(3):
            assert (await post(client, body)).status_code != 429


async def test_without_a_limit_there_are_no_rate_limit_headers(client: httpx.AsyncClient) -> None:
    assert not [name for name in (await post(client, chat())).headers if name.startswith("x-ratelimit")]

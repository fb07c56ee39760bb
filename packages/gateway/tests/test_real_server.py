"""The gateway on a real port: disconnects, too large bodies, the shutdown."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from random import Random

import httpx
import pytest
from fastapi import FastAPI
from packages.gateway.tests.conftest import END, FakeEngine, Pause, assert_error, chat, serve, until
from packages.gateway.tests.raw_http import connection, head

from gemma_gateway.settings import GatewaySettings
from gemma_wire import Chunk


async def test_a_head_over_the_limit_is_refused(url: str) -> None:
    async with connection(url) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 60_000)
        await asyncio.sleep(0.1)
        writer.write(b"\r\n\r\n")
        assert b" 200 " in await reader.readline()
    async with connection(url) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)
        assert b"more than 65,536 bytes" in await asyncio.wait_for(reader.read(), 5)


async def test_the_first_chunk_is_sent_before_the_last_is_generated(url: str, engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.script = [Chunk(text="first"), gate, Chunk(text="last"), END]
    async with (
        httpx.AsyncClient(base_url=url) as client,
        client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response,
    ):
        lines = response.aiter_lines()
        async for line in lines:
            if "first" in line:
                break
        assert engine.running == 1
        gate.set()
        rest = [line async for line in lines]
    assert "last" in rest[1]
    assert rest[-2] == "data: [DONE]"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_disconnect_cancels_the_generation(
    url: str, engine: FakeEngine, stream: bool, begun: bool
) -> None:
    """Streaming or waiting, before the first chunk or after it."""
    script: list[Chunk | Exception | asyncio.Event] = [Chunk(text="a")] if begun else []
    engine.script = [*script, asyncio.Event(), END]
    body = json.dumps(chat(stream=stream)).encode()
    async with connection(url) as (reader, writer):
        writer.write(head(len(body)) + body)
        await until(lambda: engine.running == 1)
        if stream and begun:
            await reader.readuntil(b'"content":"a"')
    await until(lambda: engine.running == 0, seconds=1)
    engine.script = [END]
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_a_disconnect_while_the_body_is_sent(
    url: str, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with connection(url) as (_, writer):
        writer.write(head(1000) + b'{"model":')
        await writer.drain()
        await asyncio.sleep(0.1)
    await until(lambda: "499" in caplog.text)
    assert engine.asked == []
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_client_that_does_not_read_stops_the_engine(url: str, engine: FakeEngine) -> None:
    """Its response does not accumulate in memory: the engine's generator is suspended."""
    engine.script = [*(Chunk(text="x" * 100_000) for _ in range(500)), END]
    body = json.dumps(chat(stream=True)).encode()
    async with connection(url) as (_, writer):
        writer.write(head(len(body)) + body)
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.3)
        assert engine.running == 1
    await until(lambda: engine.running == 0, seconds=1)


async def test_a_hundred_clients_that_leave_at_random_moments(
    url: str, engine: FakeEngine, app: FastAPI
) -> None:
    """While they send, wait, or read; complete responses and streams. A second later no state is left."""
    random = Random(7)
    engine.script = [step for _ in range(200) for step in (Chunk(text="a" * 200), Pause(0.02))]

    async def visit(number: int) -> None:
        reads = number % 2 == 0
        body = json.dumps(chat(stream=reads or number % 3 == 0)).encode()
        async with connection(url) as (reader, writer):
            sent = random.randrange(len(body)) if number % 10 == 1 else len(body)
            writer.write(head(len(body)) + body[:sent])
            if reads:
                await reader.readuntil(b"aaa")
            await asyncio.sleep(random.random() * 0.5)

    await asyncio.gather(*map(visit, range(100)))
    assert len(engine.asked) >= 50
    await until(lambda: engine.running == 0 and not len(app.state.running), seconds=1)


async def test_many_streams_at_once(url: str, engine: FakeEngine) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=chat(stream=number % 2 == 0)) for number in range(16))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 16
    assert (len(engine.asked), engine.running) == (16, 0)


async def test_a_declared_body_over_the_limit_is_refused_unread(url: str, settings: GatewaySettings) -> None:
    """The response arrives before a byte of the body is sent."""
    async with connection(url) as (reader, writer):
        writer.write(head(settings.max_body_bytes + 1))
        status = await asyncio.wait_for(reader.readline(), 5)
        assert status.startswith(b"HTTP/1.1 413")
        body = (await reader.readuntil(b"}}")).partition(b"\r\n\r\n")[2]
        assert json.loads(body)["error"]["code"] == "request_too_large"


async def test_a_chunked_body_over_the_limit_is_refused_while_it_arrives(
    url: str, settings: GatewaySettings
) -> None:
    async with connection(url) as (reader, writer):
        writer.write(head(None))
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(settings.max_body_bytes // 0x10000 + 1):
            writer.write(piece)
            await writer.drain()
        status = await asyncio.wait_for(reader.readline(), 5)  # the body has no end yet
        assert status.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_limit_is_exact(url: str, settings: GatewaySettings, extra: int) -> None:
    body = json.dumps(chat("")).encode()
    padded = body.replace(b'""', b'"' + b"x" * (settings.max_body_bytes - len(body) + extra) + b'"')
    headers = {"content-type": "application/json"}

    async def chunked() -> AsyncIterator[bytes]:
        yield padded[:1000]
        yield padded[1000:]

    async with httpx.AsyncClient(base_url=url) as client:
        for content in (padded, chunked()):
            response = await client.post("/v1/chat/completions", content=content, headers=headers)
            assert response.status_code == (413 if extra else 200)
        if extra:
            assert_error(response, 413, None, "request_too_large")


async def test_the_shutdown_sends_an_error_to_waiting_requests(app: FastAPI, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="a"), asyncio.Event()]
    async with serve(app, shutdown_seconds=1) as (server, url), httpx.AsyncClient(base_url=url) as client:
        streamed = asyncio.create_task(client.post("/v1/chat/completions", json=chat(stream=True)))
        whole = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))
        await until(lambda: engine.running == 2)
        server.should_exit = True
        async with asyncio.timeout(5):
            assert_error(await whole, 503, None, "service_unavailable")
            last = (await streamed).text.removesuffix("\n\n").split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "service_unavailable"
    assert (engine.running, engine.closed) == (0, True)

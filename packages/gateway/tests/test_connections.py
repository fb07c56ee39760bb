"""Limits and timeouts of connections: idle, slow, and not reading clients."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from packages.gateway.tests.conftest import END, FakeEngine, Pause, chat, serve, until
from packages.gateway.tests.raw_http import LIVE, connection, everything, head, question, refusal

from gemma_gateway.http_server import connections
from gemma_gateway.http_server.connections import HEALTH_RESERVE
from gemma_wire import Chunk

ANSWER = b'{"status":"ok"}'


async def live(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(5):
        writer.write(LIVE)
        assert b" 200 " in await reader.readline()
        await reader.readuntil(ANSWER)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)


async def closed_after(reader: asyncio.StreamReader) -> tuple[float, bytes]:
    began, rest = asyncio.get_running_loop().time(), b""
    with contextlib.suppress(ConnectionError):  # it was closed while bytes were on their way
        rest = await everything(reader)
    return asyncio.get_running_loop().time() - began, rest


async def test_a_connection_without_a_request_is_closed(app: FastAPI) -> None:
    """A new connection after the header timeout, a used one after the keep-alive timeout."""
    async with serve(app, header_seconds=0.3, keep_alive_seconds=1) as (server, url):
        async with connection(url) as (reader, _):
            seconds, rest = await closed_after(reader)
            assert (0.2 < seconds < 5, rest) == (True, b"")
        async with connection(url) as (reader, writer):
            for _ in range(3):
                await live(reader, writer)
                await asyncio.sleep(0.5)
            seconds, rest = await closed_after(reader)
            assert (0.3 < seconds < 5, rest) == (True, b"")
        await until(lambda: not len(server.pool))


@pytest.mark.parametrize("before", [b"", LIVE], ids=["first", "second"])
async def test_a_head_that_arrives_byte_by_byte_times_out(app: FastAPI, before: bytes) -> None:
    """The timeout begins with the connection, or the first byte; further bytes do not extend it."""
    async with serve(app, header_seconds=0.5, keep_alive_seconds=30) as (server, url):
        async with connection(url) as (reader, writer):
            if before:
                await live(reader, writer)
                await asyncio.sleep(0.6)
            ended = asyncio.create_task(closed_after(reader))
            for byte in LIVE * 10:
                writer.write(bytes((byte,)).replace(b"\r", b"x").replace(b"\n", b"x"))
                await asyncio.sleep(0.05)
                if ended.done():
                    break
            seconds, response = await ended
        status, error = refusal(response)
        assert (status, error["code"]) == (408, "request_timeout")
        assert "head of the request did not arrive within 0.5 seconds" in error["message"]
        assert 0.4 < seconds < 5
        await until(lambda: not len(server.pool))


async def test_an_unread_body_is_drained_for_a_limited_time(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response arrives before the body; then the body is discarded for a limited time."""
    async with serve(app) as (server, url), connection(url) as (reader, writer):
        object.__setattr__(server.pool.timeouts, "drain", 0.5)
        writer.write(head(10**9))
        assert b" 413 " in await reader.readline()
        ended = asyncio.create_task(closed_after(reader))
        while not ended.done():
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert (await ended)[0] < 5
        await until(lambda: not len(server.pool))


async def test_a_connection_can_be_reused_after_an_unread_body(url: str) -> None:
    async with connection(url) as (reader, writer):
        body = b"x" * 100_000
        writer.write(head(len(body), "/nowhere"))
        assert b" 404 " in await reader.readline()
        await reader.readuntil(b"}}")
        writer.write(body)
        await live(reader, writer)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_stops_reading_is_disconnected(
    app: FastAPI, engine: FakeEngine, stream: bool
) -> None:
    """Its request ends; its connection, too, if the complete response has been written before."""
    engine.script = [*(Chunk(text="x" * 100_000) for _ in range(500)), END]
    async with serve(app, write_seconds=0.5) as (server, url), connection(url) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(question(stream=stream))
        await until(lambda: len(engine.asked) == 1)
        await until(lambda: not len(server.pool), seconds=5)
        await until(lambda: not (engine.running or len(app.state.running) or server.server_state.tasks))
        del reader


async def test_a_client_that_reads_slowly_receives_everything(app: FastAPI, engine: FakeEngine) -> None:
    engine.script = [*(Chunk(text="x" * 100_000) for _ in range(100)), END]
    async with serve(app, write_seconds=0.5) as (_, url), connection(url) as (reader, writer):
        writer.write(question(stream=True))
        size, loop = 0, asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(30):
            while size < 10_000_000:
                size += len(await reader.read(400_000))
                await asyncio.sleep(0.05)
        assert loop.time() - began > 1


@asynccontextmanager
async def many(url: str, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(connection(url)))[0] for _ in range(count)]


async def test_a_new_connection_replaces_the_oldest_idle_one(app: FastAPI) -> None:
    async with serve(app, max_connections=8) as (server, url):
        async with connection(url) as (reader, writer), many(url, 7) as idle:
            await live(reader, writer)  # so that it is the youngest
            async with many(url, 7):
                await live(reader, writer)
                await asyncio.gather(*(everything(each) for each in idle))
                async with httpx.AsyncClient(base_url=url) as client:
                    assert (await client.get("/v1/models")).status_code == 200
                assert len(server.pool) <= 8
        await until(lambda: not len(server.pool))


async def test_when_all_connections_are_busy_only_health_checks_are_served(
    app: FastAPI, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()
    engine.script = [Chunk(text="a"), gate, END]
    limits = httpx.Limits(max_connections=100)
    async with (
        serve(app, max_connections=4) as (server, url),
        httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client,
    ):
        running = [asyncio.create_task(client.post("/v1/chat/completions", json=chat())) for _ in range(4)]
        await until(lambda: engine.running == 4)
        for _ in range(3):
            for path in ("/health", "/health/live", "/health/ready", "/metrics"):
                async with httpx.AsyncClient(base_url=url) as other:
                    assert (await other.get(path)).status_code == 200
            async with connection(url) as (reader, writer):
                writer.write(question())
                status, error = refusal(await everything(reader))
                assert (status, error["code"]) == (503, "too_many_connections")
                assert "4 connections" in error["message"]
        # idle ones do not keep health checks out
        async with many(url, 2 * HEALTH_RESERVE), connection(url) as (reader, writer):
            await live(reader, writer)
        gate.set()
        assert {(await each).status_code for each in running} == {200}
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert 1 <= len(warnings) < 5  # one in 10 s, however long this takes here
    assert "API_MAX_CONNECTIONS" in warnings[0].getMessage()
    assert (engine.running, len(server.pool)) == (0, 0)


async def test_connections_over_all_limits_get_503_at_once(app: FastAPI, engine: FakeEngine) -> None:
    """A 503 without reading a request."""
    engine.script = [asyncio.Event()]
    busy = question()
    async with AsyncExitStack() as stack, serve(app, max_connections=2) as (server, url):
        server.pool._shares[connections.Admission.HEALTH_ONLY].limit = 0
        for _ in range(2):
            _, writer = await stack.enter_async_context(connection(url))
            writer.write(busy)
        await until(lambda: engine.running == 2)
        async with connection(url) as (reader, _):
            response = await everything(reader)
        assert refusal(response)[0] == 503
        assert b"\r\nRetry-After: " in response


async def test_running_out_of_descriptors_is_logged_once(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio reports a failed accept thousands of times per second; other connections are evicted."""
    loop = asyncio.get_running_loop()
    context = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "Too many open files"),
        "socket": object(),
    }
    async with serve(app) as (server, url), many(url, 3) as idle:
        await until(lambda: len(server.pool) == 3)
        for _ in range(1000):
            loop.call_exception_handler(context)
        await asyncio.gather(*map(everything, idle))
        assert len(caplog.records) == 1
        assert "Too many open files" in caplog.text
        assert "Traceback" not in caplog.text
        loop.call_exception_handler({"message": "something else"})
        assert "something else" in caplog.text
    assert loop.get_exception_handler() is None


async def test_four_hundred_idle_connections_and_256_descriptors(tmp_path: object) -> None:
    """The process itself: new clients still get responses, and the log stays short."""
    environment = os.environ | {"API_PORT": "0", "TRITON_GRPC_URL": "127.0.0.1:1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gemma_gateway"),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while not (
                found := re.search(rb"running on (http://127.0.0.1:\d+)", await process.stderr.readline())
            ):
                pass
        url = found[1].decode()
        async with AsyncExitStack() as stack:
            for start in range(4):
                opened = (stack.enter_async_context(connection(url)) for _ in range(100))
                await asyncio.gather(*opened)
                async with httpx.AsyncClient(base_url=url) as client:
                    assert (await client.get("/health/live")).status_code == 200, start
        process.terminate()
        rest = await process.stderr.read()
        assert b"Traceback" not in rest
        assert len(rest.splitlines()) < 20
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_waiting_for_the_model_is_not_idle_time(app: FastAPI, engine: FakeEngine) -> None:
    """No timeout of a connection applies while a request is in progress."""
    engine.script = [Pause(1.5), Chunk(text="late"), END]
    short = {"header_seconds": 0.3, "keep_alive_seconds": 0.3, "write_seconds": 0.3}
    async with serve(app, **short) as (_, url), httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/v1/chat/completions", json=chat())
    assert json.loads(response.text)["choices"][0]["message"]["content"] == "late"


async def test_what_is_written_is_sent_at_once(app: FastAPI) -> None:
    """Also with a listening socket for which asyncio does not set TCP_NODELAY, as here."""
    async with serve(app) as (running, url), connection(url) as (reader, writer):
        await live(reader, writer)
        (server_side,) = running.server_state.connections
        sock = server_side.transport.get_extra_info("socket")
        assert sock.proto == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

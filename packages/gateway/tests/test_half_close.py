"""Clients that close their sending side and wait, and clients that have closed the connection."""

import asyncio
import json
import socket
import struct

import pytest
from fastapi import FastAPI
from openai._streaming import SSEDecoder
from packages.gateway.tests.conftest import END, FakeEngine, Pause, serve, until
from packages.gateway.tests.raw_http import LIVE, connection, everything, head, question

from gemma_wire import Chunk

UPGRADE = b"Upgrade: h2c\r\nConnection: Upgrade\r\n"


def body_of(response: bytes) -> bytes:
    assert response.startswith(b"HTTP/1.1 200 "), response
    return response.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("seconds", [0, 0.05, 1.5])
async def test_a_half_closed_client_receives_its_response(
    url: str, engine: FakeEngine, stream: bool, version: str, seconds: float
) -> None:
    """At once, and after several probes; the response is the same as for every client."""
    pauses = [Pause(seconds)] if seconds else []
    engine.script = [*pauses, Chunk(text="Hello"), *pauses, Chunk(text=" world"), END]
    async with connection(url) as (reader, writer):
        writer.write(question(version, stream=stream))
        writer.write_eof()
        response = await everything(reader)
    body = body_of(response)
    assert response.count(b"HTTP/1.1") == 1
    if stream:
        assert body.count(b'"content":"Hello"') == body.count(b'"content":" world"') == 1
        assert b"data: [DONE]" in body
    else:
        assert b'"content":"Hello world"' in body


async def test_the_sdk_understands_a_stream_with_probes(url: str, engine: FakeEngine) -> None:
    """Comments between events are ignored."""
    engine.script = [Chunk(text="a"), Pause(1), Chunk(text="b"), END]
    async with connection(url) as (reader, writer):
        writer.write(question("1.0", stream=True))
        writer.write_eof()
        body = body_of(await everything(reader))
    assert b": \n\n" in body
    decoded = [event.data for event in SSEDecoder().iter_bytes(iter([body])) if event.data]
    assert [event == "[DONE]" or bool(json.loads(event)["choices"]) for event in decoded] == [True] * 5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("half_closed", [True, False])
async def test_a_closed_connection_is_noticed(
    url: str, engine: FakeEngine, app: FastAPI, stream: bool, version: str, begun: bool, half_closed: bool
) -> None:
    """By closing the connection at once, or one side after the other."""
    engine.script = [*([Chunk(text="a")] if begun else []), asyncio.Event(), END]
    async with connection(url) as (_, writer):
        writer.write(question(version, stream=stream))
        await until(lambda: engine.running == 1)
        if half_closed:
            writer.write_eof()
            await asyncio.sleep(0.3)
            assert engine.running == 1
    await until(lambda: engine.running == 0 and not len(app.state.running), seconds=1)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("more", [b"\r\n", LIVE, b"x" * 100_000], ids=["line", "request", "much"])
async def test_a_disconnect_after_pipelined_data_is_noticed(
    url: str, engine: FakeEngine, more: bytes, reset: bool
) -> None:
    """Nothing is read from a connection while a request is in progress and another one waits."""
    engine.script = [asyncio.Event(), END]
    async with connection(url) as (_, writer):
        writer.write(question())
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.1)
        writer.write(more)
        await asyncio.sleep(0.1)
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until(lambda: engine.running == 0, seconds=1)


@pytest.mark.parametrize("header", [UPGRADE, b"Connection: close\r\n"], ids=["upgrade", "close"])
async def test_other_requests_that_pause_reading(url: str, engine: FakeEngine, header: bytes) -> None:
    """Java's HTTP client offers h2c with every request."""
    engine.script = [Pause(0.3), Chunk(text="Hello"), END]
    whole = question().replace(b"Content-Type", header + b"Content-Type")
    async with connection(url) as (reader, writer):
        writer.write(whole + b"\r\n")
        assert b"200 OK" in await reader.readline()
    engine.script = [asyncio.Event(), END]
    async with connection(url) as (_, writer):
        writer.write(whole)
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.1)
        writer.write(b"\r\n")
    await until(lambda: engine.running == 0, seconds=1)


async def test_every_request_of_a_half_closed_pipeline_gets_a_response(url: str, engine: FakeEngine) -> None:
    engine.script = [Pause(0.3), Chunk(text="Hello"), END]
    async with connection(url) as (reader, writer):
        writer.write(question() + LIVE + question(stream=True) + LIVE)
        writer.write_eof()
        response = await everything(reader)
    assert response.count(b"HTTP/1.1 200 OK\r\n") == 4


@pytest.mark.parametrize("stage", range(6))
async def test_a_half_close_at_every_stage(url: str, app: FastAPI, stage: int, engine: FakeEngine) -> None:
    """Without a complete request there is only an error; no state is left."""
    whole = question()
    body = len(whole) - len(whole.partition(b"\r\n\r\n")[2])
    sent = (b"", whole[:1], whole[:20], whole[: body - 2], whole[:body], whole[:-1])[stage]
    async with connection(url) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        response = await everything(reader)
    assert response.startswith(b"HTTP/1.1 400 Bad Request" if sent else b"")
    assert bool(response) == bool(sent)
    if sent:
        assert b"closed before the request was complete" in response
    await until(lambda: not len(app.state.running))
    assert engine.asked == []


async def test_a_thousand_connections_leave_no_state(app: FastAPI, engine: FakeEngine) -> None:
    """Opened and closed at every stage, by FIN and by RST."""
    engine.script = [Chunk(text="Hello"), Pause(0.05), END]
    whole = question(stream=True)
    async with serve(app) as (server, url):

        async def visit(number: int) -> None:
            async with connection(url) as (reader, writer):
                writer.write(whole[: len(whole) * (number % 10) // 8])
                if number % 3 == 0:
                    writer.write_eof()
                if number % 5 == 0:
                    await asyncio.wait_for(reader.read(10), 5) if number % 10 > 7 else await asyncio.sleep(0)
                if number % 7 == 0:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        for start in range(0, 1000, 100):
            await asyncio.gather(*map(visit, range(start, start + 100)))
        await until(lambda: not len(server.pool) and not server.server_state.tasks)
        assert (engine.running, len(app.state.running)) == (0, 0)
        assert server.server_state.connections == set()


async def test_an_unread_body_does_not_keep_a_half_closed_connection_open(url: str) -> None:
    async with connection(url) as (reader, writer):
        writer.write(head(10**9))
        assert b"413" in await reader.readline()
        writer.write_eof()
        await everything(reader)

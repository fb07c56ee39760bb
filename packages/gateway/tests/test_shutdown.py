"""SIGTERM: new requests are refused, running ones may finish, waiting ones get an error."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from packages.gateway.tests.conftest import END, FakeEngine, assert_error, chat, serve, until
from packages.gateway.tests.triton.conftest import FakeTriton, is_describe, listening

from gemma_wire import Chunk

CHAT = "/v1/chat/completions"
ALARMING = ("Traceback", "Cancel", "exceeded", "ERROR", "WARNING")


def last(text: str) -> Any:
    return json.loads(text.removesuffix("\n\n").split("\n\n")[-1].removeprefix("data: "))


def ask(client: httpx.AsyncClient, stream: bool) -> "asyncio.Task[httpx.Response]":
    return asyncio.create_task(client.post(CHAT, json=chat(stream=stream)))


async def test_requests_in_progress_finish_and_new_ones_are_refused(
    app: FastAPI, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate = asyncio.Event()
    engine.script = [Chunk(text="a"), gate, END]
    async with serve(app, shutdown_seconds=30) as (server, url), httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health/ready")).status_code == 200
        running = [ask(client, stream) for stream in (True, False)]
        await until(lambda: engine.running == 2)
        server.handle_exit(signal.SIGTERM, None)
        refused = await client.post(CHAT, json=chat())
        assert_error(refused, 503, None, "service_unavailable")
        assert refused.headers["retry-after"]
        assert refused.headers["connection"] == "close"
        assert_error(await client.get("/health/ready"), 503, None, "service_unavailable")
        assert (await client.get("/health/live")).status_code == 200
        assert len(engine.asked) == 2
        gate.set()
        streamed, whole = await asyncio.gather(*running)
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert whole.json()["choices"][0]["finish_reason"] == "stop"
    assert engine.closed
    assert not [word for word in ALARMING if word in caplog.text]


@pytest.mark.parametrize("begun", [True, False])
async def test_waiting_requests_get_an_error(
    app: FastAPI, engine: FakeEngine, begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine.script = [Chunk(text="a"), asyncio.Event()] if begun else [asyncio.Event()]
    async with serve(app, shutdown_seconds=0.2) as (server, url), httpx.AsyncClient(base_url=url) as client:
        running = [ask(client, stream) for stream in (True, False)]
        await until(lambda: engine.running == 2)
        server.should_exit = True
        streamed, whole = await asyncio.gather(*running)
    assert_error(whole, 503, None, "service_unavailable")
    if begun:
        assert last(streamed.text)["error"]["code"] == "service_unavailable"
    else:
        assert_error(streamed, 503, None, "service_unavailable")
    assert (engine.running, engine.closed) == (0, True)
    assert not [word for word in ALARMING if word in caplog.text]


async def test_a_second_signal_ends_the_rest_at_once(app: FastAPI, engine: FakeEngine) -> None:
    engine.script = [asyncio.Event()]
    async with serve(app, shutdown_seconds=60) as (server, url), httpx.AsyncClient(base_url=url) as client:
        running = ask(client, True)
        await until(lambda: engine.running == 1)
        server.handle_exit(signal.SIGINT, None)
        await asyncio.sleep(0.3)
        assert not running.done()
        server.handle_exit(signal.SIGINT, None)
        async with asyncio.timeout(10):
            assert_error(await running, 503, None, "service_unavailable")


async def test_a_client_that_does_not_read_does_not_delay_the_shutdown(
    app: FastAPI, engine: FakeEngine
) -> None:
    engine.script = [*(Chunk(text="x" * 100_000) for _ in range(500)), END]
    async with asyncio.timeout(20), serve(app, shutdown_seconds=0.1) as (server, url):
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(chat(stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: engine.running == 1)
        server.should_exit = True
        await until(lambda: engine.running == 0)
        await until(lambda: engine.closed)
        writer.close()


class Gateway:
    """``python -m gemma_gateway`` in front of a fake Triton."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def end(self) -> tuple[int, list[dict[str, Any]]]:
        """The exit code, and what was logged until then."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr is not None
        log, code = await asyncio.gather(self.process.stderr.read(), self.process.wait())
        return code, [json.loads(line) for line in log.splitlines()]


@pytest.fixture
async def triton() -> AsyncIterator[tuple[FakeTriton, str]]:
    fake = FakeTriton()
    async with listening(fake) as (target, _):
        yield fake, target


@pytest.fixture
async def process(triton: tuple[FakeTriton, str]) -> AsyncIterator[Gateway]:
    environment = os.environ | {
        "API_PORT": "0",
        "TRITON_GRPC_URL": triton[1],
        "API_SHUTDOWN_SECONDS": "2",
        "API_LOG_FORMAT": "json",
        "no_grpc_proxy": "127.0.0.1",
    }
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gemma_gateway"), env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert started.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"running on " not in (line := await started.stderr.readline()):
                assert line
        yield Gateway(started, json.loads(line)["message"].split()[3])
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


def asked(fake: FakeTriton) -> int:
    return sum(not is_describe(request) for request in fake.asked)


async def test_sixteen_streams(process: Gateway, triton: tuple[FakeTriton, str]) -> None:
    """Half of them finish in time, the others get an error; exit status 0, and no error in the log."""
    fake, _ = triton
    gate = asyncio.Event()
    fake.script = [Chunk(text="a"), gate, END]
    async with httpx.AsyncClient(base_url=process.url, timeout=30) as client:
        finishing = [ask(client, stream=True) for _ in range(8)]
        await until(lambda: asked(fake) == 8)  # from now on each of them plays this script
        fake.script = [Chunk(text="a"), asyncio.Event()]
        waiting = [ask(client, stream=True) for _ in range(8)]
        await until(lambda: asked(fake) == 16)
        ending = asyncio.create_task(process.end())
        await asyncio.sleep(0.2)
        gate.set()
        texts = [(await task).text for task in (*finishing, *waiting)]
        async with asyncio.timeout(2 + 5):
            code, log = await ending
    assert [text.endswith("data: [DONE]\n\n") for text in texts] == [True] * 8 + [False] * 8
    assert {last(text)["error"]["code"] for text in texts[8:]} == {"service_unavailable"}
    assert code == 0, log
    assert {line["level"] for line in log} == {"info"}, log
    await until(lambda: fake.running == 0)

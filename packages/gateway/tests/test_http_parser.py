"""Invalid and ambiguous HTTP."""

import asyncio
import json
import logging

import pytest
from fastapi import FastAPI
from packages.gateway.tests.conftest import FakeEngine, serve, until
from packages.gateway.tests.raw_http import LIVE, connection, everything, head, question, refusal

GET = b"GET /health/live HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"hello\r\n\r\n", "request line"),
        (b"GET /health/live\r\n\r\n", "request line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "request line"),
        (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", "request line"),
        (b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n", "request line"),
        (b"G@T / HTTP/1.1\r\n" + HOST + b"\r\n", "request line"),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", "HTTP/2.0 is not supported"),
        (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", "HTTP/0.9 is not supported"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2.0 is not supported"),
        (GET + b"\r\n", "Host header is missing"),
        (GET + HOST + HOST + b"\r\n", "more than one Host"),
        (GET + b"Host: a b\r\n\r\n", "not a host name"),
        (GET + b"Host: user@localhost\r\n\r\n", "not a host name"),
        (GET + b"Host: localhost/x\r\n\r\n", "not a host name"),
        (GET + HOST + b"Bad Name: x\r\n\r\n", "'Bad Name'"),
        (GET + HOST + b"Name : x\r\n\r\n", "'Name '"),
        (GET + HOST + b": x\r\n\r\n", "header line"),
        (GET + HOST + b"no colon\r\n\r\n", "'no colon'"),
        (GET + HOST + b"X: a\x00b\r\n\r\n", "'X'"),
        (GET + HOST + b"X: a\rb\r\n\r\n", "'X'"),
        (GET + b" Host: localhost\r\n\r\n", "begins with a space"),
        (POST + b"Content-Length: ten\r\n\r\n", "Content-Length"),
        (POST + b"Content-Length: -1\r\n\r\n", "Content-Length"),
        (POST + b"Content-Length: +1\r\n\r\n", "Content-Length"),
        (POST + b"Content-Length: 1_0\r\n\r\n", "Content-Length"),
        (POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", "Content-Length"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "different values of Content-Length"),
        (POST + b"Content-Length: 1, 2\r\n\r\n", "different values of Content-Length"),
        (POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", "exclude each other"),
        (POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n", "exclude each other"),
        (POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", "more than one Transfer-Encoding"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "only Transfer-Encoding"),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n", "only Transfer-Encoding"),
        (POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n", "needs HTTP/1.1"),
        (POST + CHUNKED + b"\r\nzz\r\n", "malformed chunk size: 'zz"),
        (POST + CHUNKED + b"\r\n-1\r\n", "malformed chunk size"),
        (POST + CHUNKED + b"\r\n" + b"f" * 30 + b"\r\n", "malformed chunk size"),
        (POST + CHUNKED + b"\r\n1\r\n{extra\r\n", "longer than its size"),
        (POST + CHUNKED + b"\r\n1;" + b"x" * 70_000, "more than 65,536 bytes"),
        (POST + CHUNKED + b"\r\n0\r\nBad Trailer: x\r\n\r\n", "'Bad Trailer'"),
        (GET + HOST + b"X: " + b"x" * 70_000, "more than 65,536 bytes"),
        (GET + HOST + b"X: " + b"x" * 70_000 + b"\r\n\r\n", "more than 65,536 bytes"),
        (GET + HOST + b"X: x\r\n" * 14_000 + b"\r\n", "more than 65,536 bytes"),
        (b"GET /" + b"x" * 70_000, "more than 65,536 bytes"),
        (b"GET http:// HTTP/1.1\r\n" + HOST + b"\r\n", "no valid host"),
        (b"GET http://a@b/ HTTP/1.1\r\n" + HOST + b"\r\n", "no valid host"),
        (b"GET http://[/ HTTP/1.1\r\n" + HOST + b"\r\n", "malformed"),
    ],
)
async def test_invalid_http_gets_400_with_the_reason(
    url: str, sent: bytes, reason: str, engine: FakeEngine, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is closed, further data is not read, and no error is logged."""
    async with connection(url) as (reader, writer):
        writer.write(sent)
        await asyncio.sleep(0.05)
        writer.write(LIVE)
        status, error = refusal(await everything(reader))
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", None)
    assert error["code"] == "malformed_http"
    assert reason in error["message"]
    await until(lambda: not len(app.state.running))
    assert engine.asked == []
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_client_that_still_sends_receives_the_error(url: str) -> None:
    """With megabytes of data, closing at once would reset the connection before the error is read."""
    async with connection(url) as (reader, writer):
        writer.write(POST + CHUNKED + b"Content-Length: 5\r\n\r\n")
        for _ in range(100):
            writer.write(b"x" * 65_536)
            await writer.drain()
        assert refusal(await asyncio.wait_for(reader.read(2000), 5))[0] == 400


async def test_invalid_http_after_a_response_gets_no_second_response(
    url: str, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """The body of a request whose response was sent before it arrived."""
    async with connection(url) as (reader, writer):
        writer.write(head(None, "/health/nowhere"))
        first = await reader.readuntil(b"}}")
        writer.write(b"5\r\nhello\r\nzz\r\n")
        assert await everything(reader) == b""
    assert b" 404 " in first.splitlines()[0]
    await until(lambda: not len(app.state.running))
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_api_keys_are_neither_logged_nor_returned(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connection(url) as (reader, writer):
        writer.write(GET + HOST + b"Authorization : Bearer sk-secret\r\n\r\n")
        response = await everything(reader)
    assert b"'Authorization '" in response
    assert b"secret" not in response
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/health/live", b"elsewhere", 200),
        (b"HTTP://localhost:80/health/live?x=1", b"localhost", 200),
        (b"http://localhost", b"localhost", 404),
        (b"http://localhost?x", b"localhost", 404),
        (b"/health/live", b"[::1]:8080", 200),
        (b"/health/live", b"", 200),
        (b"//health/live", b"localhost", 404),
        (b"//v1/models", b"localhost", 404),
        (b"/v1/./models", b"localhost", 404),
        (b"/v1/../v1/models", b"localhost", 404),
        (b"/v1%2Fmodels", b"localhost", 200),
        (b"/v1/models%3F", b"localhost", 404),
        (b"/v1/models/%ff", b"localhost", 404),
        (b"/v1/models/a%0d%0aX-Injected:%201", b"localhost", 404),
        (b"*", b"localhost", 404),
        (b"localhost:443", b"localhost", 404),
    ],
)
async def test_targets(url: str, target: bytes, host: bytes, status: int) -> None:
    async with connection(url) as (reader, writer):
        writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        response = await everything(reader)
    assert response.split()[1] == str(status).encode(), response
    assert b"\r\nx-injected" not in response.lower()


async def test_the_host_of_an_absolute_url_is_used(url: str) -> None:
    """By default only localhost is allowed, against DNS rebinding."""
    for target, header, status in (
        (b"http://evil.example/v1/models", b"localhost", b"403"),
        (b"http://localhost/v1/models", b"evil.example", b"200"),
    ):
        async with connection(url) as (reader, writer):
            writer.write(
                b"GET " + target + b" HTTP/1.1\r\nHost: " + header + b"\r\nConnection: close\r\n\r\n"
            )
            assert (await everything(reader)).split()[1] == status


@pytest.mark.parametrize("method", ["CONNECT", "OPTIONS", "TRACE", "GARBAGE", "HEAD"])
async def test_methods(url: str, method: str) -> None:
    async with connection(url) as (reader, writer):
        writer.write(f"{method} /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b" 404 " in await reader.readline()


async def test_line_breaks_between_requests(url: str) -> None:
    """Old clients send one after a body."""
    async with connection(url) as (reader, writer):
        writer.write(b"\r\n" + question() + b"\r\n")
        await reader.readuntil(b"}}")
        for piece in (b"\r", b"\n", b"\r\n\n" + LIVE + b"\r\n", LIVE):
            writer.write(piece)
            await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            for _ in range(2):
                assert b" 200 " in await reader.readline()
                await reader.readuntil(b'ok"}')


async def test_expect_100_continue(url: str) -> None:
    """The interim response is sent after the checks that need no body."""
    expecting = question().replace(b"Content-Type", b"Expect: 100-continue\r\nContent-Type")
    start, _, body = expecting.partition(b"\r\n\r\n")
    async with connection(url) as (reader, writer):
        writer.write(start + b"\r\n\r\n")
        assert b"100 Continue" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(body)
        assert b" 200 " in await reader.readline()
    async with connection(url) as (reader, writer):
        writer.write(head(10**9).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 5)


async def test_many_tiny_chunks_do_not_delay_other_connections(url: str) -> None:
    """50,000 chunks of one byte are handled in turn with other connections."""
    content = json.dumps({"model": "gemma3n", "messages": [{"role": "user", "content": "x" * 50_000}]})
    async with connection(url) as (reader, writer), connection(url) as (other_reader, other):
        writer.write(head(None) + b"".join(b"1\r\n%c\r\n" % byte for byte in content.encode()) + b"0\r\n\r\n")
        answered = asyncio.create_task(reader.readline())
        turns = 0
        while not answered.done():
            other.write(LIVE)
            assert b" 200 " in await other_reader.readline()
            await other_reader.readuntil(b'ok"}')
            turns += 1
        assert b" 200 " in answered.result()
    assert turns > 15


async def test_invalid_data_after_a_request_does_not_affect_its_response(app: FastAPI) -> None:
    """The second request on the connection is invalid."""
    async with serve(app) as (_, url), connection(url) as (reader, writer):
        writer.write(LIVE + b"hello\r\n\r\n")
        response = await everything(reader)
    first, _, second = response.partition(b"HTTP/1.1 400")
    assert b" 200 " in first
    assert b"request line" in second

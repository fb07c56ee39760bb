"""Raw HTTP requests and responses."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from packages.gateway.tests.conftest import chat

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(length: int | None, path: str = "/v1/chat/completions", version: str = "1.1") -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = (f"POST {path} HTTP/{version}", "Host: localhost", "Content-Type: application/json", size, "", "")
    return "\r\n".join(lines).encode()


def question(version: str = "1.1", **options: Any) -> bytes:
    """A complete chat request."""
    body = json.dumps(chat(**options)).encode()
    return head(len(body), version=version) + body


async def everything(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes the connection, which must be soon."""
    async with asyncio.timeout(10):
        return await reader.read()


def refusal(response: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the error of a response that ends a connection."""
    start, _, body = response.partition(b"\r\n\r\n")
    lines = [line.lower() for line in start.split(b"\r\n")]
    assert b"connection: close" in lines
    assert b"content-type: application/json" in lines
    assert b"content-length: %d" % len(body) in lines
    assert any(line.startswith(b"x-request-id: req_") for line in lines)
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(lines[0].split()[1]), error

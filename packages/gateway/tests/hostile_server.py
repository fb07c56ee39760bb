"""A malicious server and resolver, in a network where every address leads to that server."""

import asyncio
import gzip
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
from packages.gateway.tests.message_helpers import png

from gemma_gateway.media.fetcher import Fetcher, FetchLimits, FetchRefused
from gemma_gateway.media.public_addresses import Address

PUBLIC = "93.184.215.14"
ANY = FetchLimits(domains=("*",), max_bytes=100_000, seconds=30)
BRIEF = FetchLimits(ANY.domains, ANY.max_bytes, seconds=0.5)  # where time is what it is about


class Resolver:
    """Returns the results of each name in turn, and the last one from then on."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self.answers = {name.replace("_", "."): list(texts) for name, texts in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        texts = self.answers.get(host, [PUBLIC])
        answer = texts.pop(0) if len(texts) > 1 else texts[0]
        return [ipaddress.ip_address(text) for text in answer.split()]


class Rewired(httpx.AsyncBaseTransport):
    """Connects every address to the test's server, and records the addresses."""

    def __init__(self, port: int, dead: Sequence[str] = ()) -> None:
        self._port = port
        self._dead = dead
        self._inner = httpx.AsyncHTTPTransport(trust_env=False)
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.host in self._dead:
            raise httpx.ConnectError("dead")
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return await self._inner.handle_async_request(
            httpx.Request("GET", url, headers=request.headers, extensions=request.extensions)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class Hostile:
    """An HTTP server whose raw response depends on the path."""

    def __init__(self) -> None:
        self.sent = 0
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            await self._answer(head.split()[1].decode().partition("?")[0], writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it was left, which is what the tests are about
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/to/"):
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {path[4:]}\r\n\r\n".encode("latin-1"))
        elif path == "/endless":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
            await self._pour(writer)
        elif path == "/liar":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            await self._pour(writer)
        elif path == "/chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await self._pour(writer, b"10000\r\n" + bytes(0x10000) + b"\r\n")
        elif path in ("/drip", "/drip-head"):
            writer.write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if path == "/drip" else b""))
            while not writer.is_closing():
                writer.write(b"X")
                await writer.drain()
                await asyncio.sleep(0.02)
        else:
            writer.write(b"HTTP/1.1 " + PAGES[path])
            await writer.drain()

    async def _pour(self, writer: asyncio.StreamWriter, piece: bytes = bytes(0x10000)) -> None:
        """10 GB, or as much as somebody reads."""
        while self.sent < 10**10 and not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)


def page(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = (status, *headers, f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body


PAGES = {
    "/cat.png": page(png(), "Content-Type: text/plain"),
    "/page": page(b"<html>", "Content-Type: image/png"),
    "/empty": page(b""),
    "/huge": b"200 OK\r\nContent-Length: 10000000000\r\n\r\n",
    "/bomb": page(gzip.compress(bytes(10**7)), "Content-Encoding: gzip"),
    "/gone": page(b"", status="404 Not Found"),
    "/secret": page(png(), status="403 Forbidden"),
    "/short": b"200 OK\r\nContent-Length: 1000\r\n\r\nabc",
    "/garbage": b"never HTTP \x00\xff\r\n\r\n",
}


class Net:
    """A fetcher in a network with one malicious server."""

    def __init__(self, port: int, server: Hostile) -> None:
        self.port = port
        self.server = server
        self.resolver = Resolver()
        self.transport = Rewired(port)

    def fetcher(self, limits: FetchLimits = ANY, total: int = 10**6) -> Fetcher:
        return Fetcher(limits, total, self.resolver, self.transport)

    async def get(self, url: str, limits: FetchLimits = ANY) -> bytes:
        async with self.fetcher(limits) as fetcher:
            return await fetcher.get(url)

    async def refused(self, url: str, limits: FetchLimits = ANY) -> FetchRefused:
        with pytest.raises(FetchRefused) as caught:
            await self.get(url, limits)
        return caught.value

    @property
    def dialled(self) -> list[str]:
        return [request.url.host for request in self.transport.asked]


@asynccontextmanager
async def hostile() -> AsyncIterator[Net]:
    server = Hostile()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        yield Net(listener.sockets[0].getsockname()[1], server)

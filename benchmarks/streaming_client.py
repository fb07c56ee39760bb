"""A client for streams of the paced engine that does as little as possible for each event."""

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.paced_engine import START_DIGITS

_CONTENT = re.compile(rb'"content":"([0-9a]+)"')
_END = b"data: [DONE]"


class Event(NamedTuple):
    """An event that brought tokens, and when it arrived (``time.monotonic``)."""

    time: float
    tokens: int


class StreamReader(asyncio.Protocol):
    """One request on a connection of its own. A token is a character of the content.

    Args:
        request: the bytes to send.
    """

    def __init__(self, request: bytes) -> None:
        self.events: list[Event] = []
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._rest = b""
        self._start = b""
        self._transport: asyncio.Transport | None = None

    @staticmethod
    async def open(base: str, body: Mapping[str, Any]) -> "StreamReader":
        """Sends the request; ``base`` is an API's address with ``/v1``."""
        url = urlsplit(base)
        content = json.dumps(body).encode()
        head = (
            f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        if url.hostname is None or url.port is None:
            raise ValueError(f"{base!r} has no host or no port")
        loop = asyncio.get_running_loop()
        _, reader = await loop.create_connection(
            lambda: StreamReader(head.encode() + content), url.hostname, url.port
        )
        return reader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = time.monotonic()
        complete, end, rest = (self._rest + data).rpartition(b"\n\n")
        self._rest = rest
        for content in _CONTENT.findall(complete):
            self.events.append(Event(now, len(content)))
            if len(self._start) < START_DIGITS:
                self._start = (self._start + content)[:START_DIGITS]
        if end and _END in complete and not self.finished.done():
            self.finished.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if not self.finished.done():
            error = exc or RuntimeError(f"the response ended early: {self._rest[-500:]!r}")
            self.finished.set_exception(error)

    def delays(self, rate: int, began: float, ended: float) -> Iterator[float]:
        """Seconds from the time at which a token was due to its arrival, of those that arrived in a time."""
        start, number = int(self._start) / 1e6, 0
        for event in self.events:
            if began <= event.time < ended:
                yield from (event.time - start - (number + i) / rate for i in range(event.tokens))
            number += event.tokens

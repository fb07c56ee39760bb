"""The process around the application: how it listens, and how it ends.

uvicorn by itself ends on SIGTERM by closing the port at once, by cancelling with an alarming line what still
runs after a while, and by the signal itself. Here the port stays open meanwhile, to tell that the server is
shutting down; those who still wait at the end are told too; and the exit code is 0.
"""

import asyncio
import logging
import socket
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gemma_gateway.lifetime import Running
from gemma_gateway.settings import Settings

log = logging.getLogger(__name__)
_LAST_WORDS: Final = 1.0
"""Seconds for the last event or envelope to be sent; a client that does not read is then cut off."""


_MAX_HEAD: Final = 2**16
"""Bytes of a request before its body."""


class Connection(HttpToolsProtocol):
    """uvicorn's, with a limit for the head of a request: its parser would read an endless one for ever."""

    _head: int | None = 0
    """Bytes that have come of a head; ``None`` while there is anything else to read."""

    def data_received(self, data: bytes) -> None:
        """Refuses a head that has come too far without its end."""
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if self._head is not None and self._head > _MAX_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The head of a request is {_MAX_HEAD:,} bytes at most.")

    def on_headers_complete(self) -> None:
        """The body comes next."""
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next head comes next."""
        self._head = 0
        super().on_message_complete()


class Server(uvicorn.Server):
    """One gateway on one port.

    Args:
        seconds: how long open answers may go on after the signal.
    """

    def __init__(self, config: uvicorn.Config, running: Running, seconds: float) -> None:
        super().__init__(config)
        self.running = running
        self.seconds = seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first signal lets open answers finish, a second one ends them."""
        if self.running.stopping:
            asyncio.get_running_loop().call_soon_threadsafe(self.running.end)
        self.running.stop()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for open answers, ends the rest, and closes every connection."""
        self.running.stop()
        if count := len(self.running):
            log.info("shutting down: %d requests may go on for %g s", count, self.seconds)
        if not await self.running.finish(self.seconds):
            log.info("shutting down: %d requests are ended", len(self.running))
            self.running.end()
        asyncio.get_running_loop().call_later(_LAST_WORDS, self._cut_off)
        await super().shutdown(sockets)

    def _cut_off(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()


def server(app: FastAPI, settings: Settings) -> Server:
    """The server of an application made by ``create_app``."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Connection,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=2,  # more than the last words take: what it cancels, it complains about
    )
    return Server(config, app.state.running, settings.shutdown_seconds)

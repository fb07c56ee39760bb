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
from uvicorn.protocols.http.h11_impl import H11Protocol

from gemma_gateway.lifetime import Running
from gemma_gateway.settings import Settings

log = logging.getLogger(__name__)
_LAST_WORDS: Final = 1.0
"""Seconds for the last event or envelope to be sent; a client that does not read is then cut off."""
_MAX_HEAD: Final = 2**16
"""Bytes of a request before its body."""


class Connection(H11Protocol):
    """uvicorn's; its refusal names the limit for a head, which httptools would read for ever."""

    def send_400_response(self, msg: str) -> None:
        """Ends what is no request."""
        super().send_400_response(f"{msg} The head of a request is {_MAX_HEAD:,} bytes at most.")


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
        http=Connection,
        h11_max_incomplete_event_size=_MAX_HEAD,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=2,  # more than the last words take: what it cancels, it complains about
    )
    return Server(config, app.state.running, settings.shutdown_seconds)

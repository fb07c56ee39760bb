"""The process around the application: how it listens, and how it ends.

uvicorn by itself ends on SIGTERM by closing the port at once, by cancelling with an alarming line what still
runs after a while, and by the signal itself. Here the port stays open meanwhile, to tell that the server is
shutting down; those who still wait at the end are told too; and the exit code is 0.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI

from gemma_gateway.connections import ConnectionPool, Timeouts
from gemma_gateway.descriptors import connection_limit, open_files
from gemma_gateway.http_protocol import HTTPProtocol
from gemma_gateway.lifetime import Running
from gemma_gateway.settings import Settings

log = logging.getLogger(__name__)
_LAST_WORDS: Final = 1.0
"""Seconds for the last event or envelope to be sent; a client that does not read is then cut off."""
_ACCEPTED_AT_ONCE: Final = 16
"""Connections that asyncio accepts before the pool sees the first of them; each has a descriptor already."""
_QUEUE: Final = 2048
"""Connections that the system keeps until they are accepted."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server(uvicorn.Server):
    """One gateway on one port.

    Args:
        running: the requests that are being answered.
        pool: of the connections.
        seconds: how long open answers may go on after the signal.
    """

    def __init__(
        self, config: uvicorn.Config, running: Running, pool: ConnectionPool, seconds: float
    ) -> None:
        super().__init__(config)
        self.running = running
        self.pool = pool
        self.seconds = seconds
        self._cleanup = contextlib.ExitStack()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and watches over the connections."""
        await super().startup(sockets)
        for listening in (sock for each in self.servers for sock in each.sockets):
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(_QUEUE)
        loop = asyncio.get_running_loop()
        self._cleanup.callback(loop.set_exception_handler, loop.get_exception_handler())
        loop.set_exception_handler(partial(self._on_error, loop.get_exception_handler()))
        self._cleanup.callback(loop.create_task(self.pool.run()).cancel)

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
        with self._cleanup:
            await super().shutdown(sockets)

    def _on_error(self, otherwise: Any, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A connection that cannot be accepted is worth a line from time to time, and no traceback each."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context:
            self.pool.out_of_descriptors(error)
        elif otherwise is not None:
            otherwise(loop, context)
        else:
            loop.default_exception_handler(context)

    def _cut_off(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()


def server(app: FastAPI, settings: Settings) -> Server:
    """The server of an application made by ``create_app``."""
    pool = _pool(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=cast("type[asyncio.Protocol]", partial(HTTPProtocol, pool)),
        backlog=_ACCEPTED_AT_ONCE,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=2,  # more than the last words take: what it cancels, it complains about
    )
    return Server(config, app.state.running, pool, settings.shutdown_seconds)


def _pool(settings: Settings) -> ConnectionPool:
    limit = connection_limit(settings.max_connections, open_files())
    if limit < settings.max_connections:
        log.warning(
            "API_MAX_CONNECTIONS=%d, but the limit on open files is %d: %d connections may be open",
            settings.max_connections,
            open_files(),
            limit,
        )
    timeouts = Timeouts(settings.header_seconds, settings.keep_alive_seconds, settings.write_seconds)
    return ConnectionPool(limit, timeouts)

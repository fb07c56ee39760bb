"""The server process: listening and graceful shutdown.

On SIGTERM, uvicorn closes the port at once, cancels what still runs after a timeout with an error in the log,
and ends by the signal. Here the port stays open during the shutdown, so that new requests get 503; requests
that are still running at the end get an error, too; and the exit status is 0.
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

from gemma_gateway.http_server.connections import ConnectionPool, ConnectionTimeouts
from gemma_gateway.http_server.file_descriptors import connection_limit, open_files
from gemma_gateway.http_server.protocol import HTTPProtocol
from gemma_gateway.middleware.deadlines import RunningRequests
from gemma_gateway.settings import GatewaySettings

log = logging.getLogger(__name__)
_ERROR_SEND_SECONDS: Final = 1.0
"""How long the last errors may take to be sent; then all connections are closed."""
_ACCEPTED_AT_ONCE: Final = 16
"""Connections that asyncio accepts before the pool sees the first; each already has a file descriptor."""
_QUEUE: Final = 2048
"""Connections that the system queues until they are accepted."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class GatewayServer(uvicorn.Server):
    """One gateway on one port.

    Args:
        running: the requests in progress.
        pool: the connections.
        seconds: how long requests may continue after the signal.
    """

    def __init__(
        self, config: uvicorn.Config, running: RunningRequests, pool: ConnectionPool, seconds: float
    ) -> None:
        super().__init__(config)
        self.running = running
        self.pool = pool
        self.seconds = seconds
        self._cleanup = contextlib.ExitStack()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts listening and supervising the connections."""
        await super().startup(sockets)
        for listening in (sock for each in self.servers for sock in each.sockets):
            with socket.socket(fileno=os.dup(listening.fileno())) as duplicate:
                duplicate.listen(_QUEUE)
        loop = asyncio.get_running_loop()
        self._cleanup.callback(loop.set_exception_handler, loop.get_exception_handler())
        loop.set_exception_handler(partial(self._on_error, loop.get_exception_handler()))
        self._cleanup.callback(loop.create_task(self.pool.run()).cancel)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """After the first signal requests may finish; a second one ends them."""
        if self.running.stopping:
            asyncio.get_running_loop().call_soon_threadsafe(self.running.end)
        self.running.stop()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for requests in progress, ends the rest, and closes all connections."""
        self.running.stop()
        if count := len(self.running):
            log.info("shutting down: %d requests may continue for %g s", count, self.seconds)
        if not await self.running.finish(self.seconds):
            log.info("shutting down: %d requests are ended", len(self.running))
            self.running.end()
        asyncio.get_running_loop().call_later(_ERROR_SEND_SECONDS, self._abort_connections)
        with self._cleanup:
            await super().shutdown(sockets)

    def _on_error(
        self, default_handler: Any, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        """Handles failures to accept a connection; they are logged rarely and without a traceback."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context:
            self.pool.out_of_descriptors(error)
        elif default_handler is not None:
            default_handler(loop, context)
        else:
            loop.default_exception_handler(context)

    def _abort_connections(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()


def make_server(app: FastAPI, settings: GatewaySettings) -> GatewayServer:
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
        timeout_graceful_shutdown=2,  # > _ERROR_SEND_SECONDS: uvicorn logs what it cancels
    )
    return GatewayServer(config, app.state.running, pool, settings.shutdown_seconds)


def _pool(settings: GatewaySettings) -> ConnectionPool:
    limit = connection_limit(settings.max_connections, open_files())
    if limit < settings.max_connections:
        log.warning(
            "API_MAX_CONNECTIONS=%d, but the limit on open files is %d: %d connections may be open",
            settings.max_connections,
            open_files(),
            limit,
        )
    timeouts = ConnectionTimeouts(
        settings.header_seconds, settings.keep_alive_seconds, settings.write_seconds
    )
    return ConnectionPool(limit, timeouts)

"""Ends a request after its maximum time, or when the server shuts down.

The code that handles a request awaits the work and, at the same time, ``receive``, which reports a disconnect
(``disconnect.while_connected``). So a request is ended there: ``receive`` raises the error for the client.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.errors import ApiError, RequestTimeout, ServiceUnavailable

LIVE = "/health/live"
"""The only path that still works during the shutdown: the process is alive."""


class RunningRequests:
    """The requests in progress, and whether new ones are accepted."""

    def __init__(self) -> None:
        self.stopping = False
        self._requests: set[_RunningRequest] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._requests)

    def stop(self) -> None:
        """Refuse new requests from now on."""
        self.stopping = True

    async def finish(self, seconds: float) -> bool:
        """Waits until no request is running, at most ``seconds``. Returns whether that is so."""
        try:
            async with asyncio.timeout(seconds):
                await self._none.wait()
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """Ends the requests that are still running; each sends an error to its client."""
        for request in self._requests:
            request.end()

    @contextmanager
    def track(self, request: "_RunningRequest") -> Iterator[None]:
        """Counts the request as running inside the block."""
        self._requests.add(request)
        self._none.clear()
        try:
            yield
        finally:
            self._requests.discard(request)
            if not self._requests:
                self._none.set()


class RequestDeadlines:
    """Middleware: 503 during the shutdown; ends requests that take longer than ``seconds``."""

    def __init__(self, app: ASGIApp, running: RunningRequests, seconds: float) -> None:
        self.app = app
        self.running = running
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http" or scope["path"] == LIVE:
            await self.app(scope, receive, send)
        elif self.running.stopping:
            await shutting_down().response()(scope, receive, send)
        else:
            request = _RunningRequest(receive, self.seconds)
            with self.running.track(request):
                await self.app(scope, request.receive, send)


class _RunningRequest:
    """A request in progress."""

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._until = asyncio.get_running_loop().time() + seconds
        self._ended_by_shutdown = False
        self._waiting: set[asyncio.Timeout] = set()

    async def receive(self) -> Message:
        """The client's next message.

        Raises:
            RequestTimeout: the request has taken too long.
            ServiceUnavailable: the server shuts down.
        """
        try:
            async with asyncio.timeout_at(self._until) as waiting:
                self._waiting.add(waiting)
                return await self._receive()
        except TimeoutError:
            raise self._error() from None
        finally:
            self._waiting.discard(waiting)

    def end(self) -> None:
        """Ends the request now, because the server shuts down."""
        self._ended_by_shutdown = True
        self._until = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            waiting.reschedule(self._until)

    def _error(self) -> ApiError:
        if self._ended_by_shutdown:
            return shutting_down()
        return RequestTimeout(f"The request took longer than {self._seconds:g} seconds.")


def shutting_down() -> ServiceUnavailable:
    """The error for a client during the shutdown."""
    return ServiceUnavailable("The server is shutting down.", headers={"Connection": "close"})

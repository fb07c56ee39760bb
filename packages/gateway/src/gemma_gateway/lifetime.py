"""How long a request may go on: until its time is over, or the server's is.

Whoever works on a request waits for two things at once, the work and the client's leaving, which ASGI calls
``receive``. So that is where its end is told: ``receive`` raises what the client is to be answered.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.errors import ApiError, RequestTimeout, ServiceUnavailable

LIVE = "/health/live"
"""The one thing that is still answered while the server shuts down: the process runs."""


class Running:
    """The requests that are being answered, and whether more are welcome."""

    def __init__(self) -> None:
        self.stopping = False
        self._requests: set[_Life] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._requests)

    def stop(self) -> None:
        """From now on new requests are refused."""
        self.stopping = True

    async def finish(self, seconds: float) -> bool:
        """Waits at most so long until no request is running; whether that is so."""
        try:
            async with asyncio.timeout(seconds):
                await self._none.wait()
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """Ends those that are still running: each is told, and tells its client."""
        for life in self._requests:
            life.end()

    @contextmanager
    def counting(self, life: "_Life") -> Iterator[None]:
        """Among the running as long as the block lasts."""
        self._requests.add(life)
        self._none.clear()
        try:
            yield
        finally:
            self._requests.discard(life)
            if not self._requests:
                self._none.set()


class Lifetime:
    """Refuses requests with 503 while the server stops, and ends those that take longer than ``seconds``."""

    def __init__(self, app: ASGIApp, running: Running, seconds: float) -> None:
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
            life = _Life(receive, self.seconds)
            with self.running.counting(life):
                await self.app(scope, life.receive, send)


class _Life:
    """One request's."""

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._until = asyncio.get_running_loop().time() + seconds
        self._cut = False
        self._waiting: set[asyncio.Timeout] = set()

    async def receive(self) -> Message:
        """The client's next message.

        Raises:
            RequestTimeout: the request's time is over.
            ServiceUnavailable: the server's is.
        """
        try:
            async with asyncio.timeout_at(self._until) as waiting:
                self._waiting.add(waiting)
                return await self._receive()
        except TimeoutError:
            raise self._why() from None
        finally:
            self._waiting.discard(waiting)

    def end(self) -> None:
        """Now, as the server shuts down."""
        self._cut = True
        self._until = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            waiting.reschedule(self._until)

    def _why(self) -> ApiError:
        if self._cut:
            return shutting_down()
        return RequestTimeout(f"The request was not answered within {self._seconds:g} seconds.")


def shutting_down() -> ServiceUnavailable:
    """What a client is told that cannot be answered because the server stops."""
    return ServiceUnavailable("The server is shutting down.", headers={"Connection": "close"})

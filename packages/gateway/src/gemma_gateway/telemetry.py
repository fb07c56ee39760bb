"""A request's number and its one line in the log."""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.errors import InternalError, ServiceUnavailable

log = logging.getLogger(__name__)
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def configure_logging(level: str) -> None:
    """Readable lines on stderr, uvicorn's among them."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s")


class RequestLog:
    """The outermost layer: numbers every request, logs it when it ended, and answers what nobody caught.

    ``x-request-id`` is taken from the client when it is sane, and is on every answer;
    inside, it is ``request.state.request_id``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "http":
            await _Exchange(scope, receive, send).run(self.app)
        else:
            await self.app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.status: int | None = None
        self.began = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        self.id = given if _SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = self.id

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self._send)
        except asyncio.CancelledError:  # only a server that shuts down cancels a request
            if self.status is None:
                await self._answer(ServiceUnavailable("The server is shutting down."))
        except Exception:
            log.exception("%s failed", self.id)
            if self.status is not None:
                raise  # too late for an answer: the server drops the connection
            await self._answer(InternalError())
        finally:
            self._log()

    async def _answer(self, error: InternalError | ServiceUnavailable) -> None:
        await error.response()(self.scope, self.receive, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.id
        await self.send(message)

    def _log(self) -> None:
        milliseconds = (time.perf_counter() - self.began) * 1e3
        method, path = self.scope["method"], self.scope["path"]
        level = logging.DEBUG if path.startswith("/health") and self.status == 200 else logging.INFO
        log.log(level, "%s %r %s %.0f ms %s", method, path, self.status, milliseconds, self.id)

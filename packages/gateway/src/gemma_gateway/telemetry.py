"""A request's number, its one line in the log, and what the metrics learn of it."""

import asyncio
import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.auth import HEALTH
from gemma_gateway.errors import ApiError, InternalError, ServiceUnavailable
from gemma_gateway.metrics import Metrics

log = logging.getLogger(__name__)
API_VERSION: Final = "2020-10-01"
"""OpenAI's only one."""
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PROBES: Final = (*HEALTH, "/metrics")
"""Asked every few seconds for ever: only a change is worth a line."""


class RequestLog:
    """The outermost layer: numbers requests, logs and counts them at their end, answers what nobody caught.

    ``x-request-id`` is taken from the client when it is sane, and is on every answer; inside, it is
    ``request.state.request_id``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics
        self.probed = dict.fromkeys(_PROBES, 200)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            with self.metrics.http_in_flight.track_inprogress():
                await exchange.run(self.app)
        finally:
            exchange.count(self.metrics)
            exchange.log(self._level(exchange))

    def _level(self, exchange: "_Exchange") -> int:
        path, status = exchange.scope["path"], exchange.status or 0
        if path not in self.probed:
            return logging.INFO
        before, self.probed[path] = self.probed[path], status
        return logging.DEBUG if status == before else logging.INFO


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
        except asyncio.CancelledError:  # only a server that had no more patience cancels a request
            if self.status is None:
                await self._answer(ServiceUnavailable("The server is shutting down."))
        except Exception:
            log.exception("%s failed", self.id)
            if self.status is not None:
                raise  # too late for an answer: the server drops the connection
            await self._answer(InternalError())

    def count(self, metrics: Metrics) -> None:
        method = self.scope["method"] if self.scope["method"] in _METHODS else "other"
        metrics.http_requests.labels(method, self._handler, str(self.status)).inc()
        metrics.http_seconds.labels(self._handler).observe(self._seconds)
        if code := self.scope["state"].get("error_code"):
            metrics.errors.labels(code).inc()

    def log(self, level: int) -> None:
        method, path, milliseconds = self.scope["method"], self.scope["path"], self._seconds * 1e3
        fields = {
            "request_id": self.id,
            "method": method,
            "path": path,
            "status": self.status,
            "milliseconds": round(milliseconds, 1),
            "error": self.scope["state"].get("error_code"),
        }
        message = "%s %r %s %.0f ms %s"
        log.log(level, message, method, path, self.status, milliseconds, self.id, extra={"fields": fields})

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self.began

    @property
    def _handler(self) -> str:
        """The route's own path, of which there are few, and not the client's, which may be anything."""
        return str(getattr(self.scope.get("route"), "path_format", "none"))

    async def _answer(self, error: ApiError) -> None:
        await error.response()(self.scope, self.receive, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["openai-version"] = API_VERSION
            headers["openai-processing-ms"] = f"{self._seconds * 1e3:.0f}"
        await self.send(message)

"""Request ids, the request log, and the HTTP metrics."""

import asyncio
import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.auth import HEALTH
from gemma_gateway.errors import ApiError, InternalError, ServiceUnavailable, is_anthropic
from gemma_gateway.observability.metrics import GatewayMetrics

log = logging.getLogger(__name__)
API_VERSION: Final = "2020-10-01"
"""OpenAI's only one."""
_VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PROBES: Final = (*HEALTH, "/metrics")
"""Requested every few seconds: logged only when the status changes."""


class RequestLog:
    """The outermost middleware: assigns ids, logs and counts requests, and handles unexpected exceptions.

    ``x-request-id`` is taken from the client if it is valid, and is on every response; handlers find it in
    ``request.state.request_id``.
    """

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
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
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.status: int | None = None
        self.began = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        self.id = given if _VALID_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = self.id

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self._send)
        except asyncio.CancelledError:  # the server cancels a request only at the end of its shutdown
            if self.status is None:
                await self._respond(ServiceUnavailable("The server is shutting down."))
        except Exception:
            log.exception("%s failed", self.id)
            if self.status is not None:
                raise  # the response has begun: the server closes the connection
            await self._respond(InternalError())

    def count(self, metrics: GatewayMetrics) -> None:
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
        """The path of the route, not of the request: a metric must not have a label for every URL."""
        return str(getattr(self.scope.get("route"), "path_format", "none"))

    async def _respond(self, error: ApiError) -> None:
        await error.response()(self.scope, self.receive, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            if is_anthropic(self.scope["path"]):
                headers["request-id"] = self.id
            headers["openai-version"] = API_VERSION
            headers["openai-processing-ms"] = f"{self._seconds * 1e3:.0f}"
        await self.send(message)

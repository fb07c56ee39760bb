"""Limits that apply before a request is parsed."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.errors import BodyTooLarge, RequestTimeout, TooManyRequests

RETRY_SECONDS: Final = 1
"""Retry-After of a refused request; when a running one will end is unknown."""
UPLOADS: Final = "/v1/audio/"
"""Paths whose bodies are files, which have limits of their own."""


@dataclass(frozen=True)
class BodyLimits:
    """Limits on bodies: their size, and the time in which they arrive."""

    max_bytes: int
    seconds: float

    def too_large(self) -> BodyTooLarge:
        """The error for a body over ``max_bytes``."""
        return BodyTooLarge(f"The request body is over the limit of {self.max_bytes} bytes.")

    def too_slow(self) -> RequestTimeout:
        """The error for a body that takes longer than ``seconds``."""
        return RequestTimeout(f"The request body did not arrive within {self.seconds:g} seconds.")


class BodyLimit:
    """Refuses a body over the limit with 413, and one that takes longer than the limit with 408.

    If the Content-Length is too large, the body is not read at all. A chunked body is counted while it
    arrives, so that never more than the limit is in memory.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits, uploads: BodyLimits) -> None:
        self.app = app
        self.limits = limits
        self.uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limits = self.uploads if scope["path"].startswith(UPLOADS) else self.limits
        if self._declared(scope) > limits.max_bytes:
            await limits.too_large().response()(scope, receive, send)
        else:
            await self.app(scope, self._counted(receive, limits), send)

    @staticmethod
    def _counted(receive: Receive, limits: BodyLimits) -> Receive:
        seen = 0
        late: float | None = asyncio.get_running_loop().time() + limits.seconds

        async def counted() -> Message:
            nonlocal seen, late
            try:
                async with asyncio.timeout_at(late):
                    message = await receive()
            except TimeoutError:
                raise limits.too_slow() from None
            seen += len(message.get("body", b""))
            if seen > limits.max_bytes:
                raise limits.too_large()
            if not message.get("more_body", False):
                late = None  # after the body, ``receive`` waits for a disconnect
            return message

        return counted

    @staticmethod
    def _declared(scope: Scope) -> int:
        value = Headers(scope=scope).get("content-length", "")
        return int(value) if value.isdecimal() else 0


class ConcurrencyLimit:
    """At most ``most`` concurrent requests of one API key (``state.key``); further ones are refused with 429.

    Only POST requests count, since only they use the model. Their responses report the limit and the
    remaining number in OpenAI's ``x-ratelimit-…-requests`` headers.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most
        self.running: Counter[object] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        key = scope.get("state", {}).get("key")
        if self.running[key] >= self.most:
            await self._refusal()(scope, receive, self._with_headers(send, 0))
            return
        self.running[key] += 1
        try:
            await self.app(scope, receive, self._with_headers(send, self.most - self.running[key]))
        finally:
            self.running[key] -= 1

    def _with_headers(self, send: Send, remaining: int) -> Send:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-ratelimit-limit-requests"] = str(self.most)
                headers["x-ratelimit-remaining-requests"] = str(remaining)
                headers["x-ratelimit-reset-requests"] = f"{RETRY_SECONDS}s"
            await send(message)

        return with_headers

    def _refusal(self) -> ASGIApp:
        sentence = f"The limit of {self.most} concurrent requests for this API key is reached."
        return TooManyRequests(sentence).response()

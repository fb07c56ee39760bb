"""Limits that hold before anything is parsed."""

import asyncio
from collections import Counter
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.errors import BodyTooLarge, RequestTimeout, TooManyRequests

RETRY_SECONDS: Final = 1
"""When a refused request may come again; nobody knows when one of those that run will end."""


class BodyLimit:
    """Refuses a body over ``max_bytes`` with 413, and one that takes longer than ``seconds`` with 408.

    One that says in Content-Length that it is too large is refused before a byte of it is read. One that
    does not (chunked) is counted as it comes, so no more than the limit is ever held.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self._declared(scope) > self.max_bytes:
            await self._too_large().response()(scope, receive, send)
        else:
            await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        seen = 0
        late: float | None = asyncio.get_running_loop().time() + self.seconds

        async def counted() -> Message:
            nonlocal seen, late
            try:
                async with asyncio.timeout_at(late):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                late = None  # what is received after the body is the end of the connection
            return message

        return counted

    @staticmethod
    def _declared(scope: Scope) -> int:
        value = Headers(scope=scope).get("content-length", "")
        return int(value) if value.isdecimal() else 0

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is over the limit of {self.max_bytes} bytes.")

    def _too_slow(self) -> RequestTimeout:
        return RequestTimeout(f"The request body did not arrive within {self.seconds:g} seconds.")


class ConcurrencyLimit:
    """At most ``most`` requests of one key (``state.key``) at a time; one more is refused with 429.

    Only what asks the model something counts, which is what is posted. Each such answer tells in OpenAI's
    ``x-ratelimit-…-requests`` headers how many are allowed, and how many more would be at this moment.
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
            await self._refusal()(scope, receive, self._telling(send, 0))
            return
        self.running[key] += 1
        try:
            await self.app(scope, receive, self._telling(send, self.most - self.running[key]))
        finally:
            self.running[key] -= 1

    def _telling(self, send: Send, remaining: int) -> Send:
        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-ratelimit-limit-requests"] = str(self.most)
                headers["x-ratelimit-remaining-requests"] = str(remaining)
                headers["x-ratelimit-reset-requests"] = f"{RETRY_SECONDS}s"
            await send(message)

        return telling

    def _refusal(self) -> ASGIApp:
        sentence = (
            f"{self.most} requests of this API key are running, which is as many as are allowed at a time."
        )
        return TooManyRequests(sentence).response()

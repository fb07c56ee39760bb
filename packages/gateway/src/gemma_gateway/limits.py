"""Limits that hold before anything is parsed."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_gateway.errors import BodyTooLarge


class BodyLimit:
    """Refuses a body over ``max_bytes`` with 413.

    One that says so in Content-Length is refused before a byte of it is read. One that does not (chunked) is
    counted as it comes, so no more than the limit is ever held.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

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

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise self._too_large()
            return message

        return counted

    @staticmethod
    def _declared(scope: Scope) -> int:
        value = Headers(scope=scope).get("content-length", "")
        return int(value) if value.isdecimal() else 0

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is over the limit of {self.max_bytes} bytes.")

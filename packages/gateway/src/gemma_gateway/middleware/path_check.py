"""Refuses paths that cannot belong to this API."""

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_gateway.errors import NotFound

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class PathCheck:
    """Responds with 404 to a path with a control character.

    The router's patterns end in ``$``, which also matches before a line break at the end: without this check
    ``/v1/models/gemma3n%0a`` would be ``/v1/models/gemma3n``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "http" and _CONTROL.search(scope["path"]):
            error = NotFound(f"Unknown URL: {scope['method']} {scope['path'][:200]!r}.")
            await error.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)

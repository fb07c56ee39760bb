"""Ends the work on a request when its client disconnects or its time is over.

A disconnect is notified, not polled: when the connection is lost, the HTTP server makes ``receive`` return
``http.disconnect``.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientDisconnected(Exception):
    """The client has closed the connection before the response was complete."""


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled at once when the client disconnects or ``receive`` raises.

    Args:
        receive: the ASGI channel, after the request body has been read.
        work: owns everything that it opens, and closes it when it is cancelled.

    Raises:
        ClientDisconnected: the client disconnected first.
        ApiError: the request was ended first, see ``middleware.deadlines``.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        gone.result()
        raise ClientDisconnected
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

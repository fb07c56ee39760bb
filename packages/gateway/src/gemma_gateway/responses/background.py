"""Responses that are generated in the background, for clients that ask for them later."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gemma_gateway.errors import ApiError, InternalError, RequestTimeout, TooManyRequests

log = logging.getLogger(__name__)
Key = tuple[str, str]
"""Owner and id of a response."""


class BackgroundResponses:
    """The responses that are being generated.

    Args:
        most: of one owner at the same time; 0: no limit.
        seconds: after which one has failed.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def start(
        self, key: Key, work: Callable[[], Awaitable[None]], failed: Callable[[ApiError], Awaitable[None]]
    ) -> None:
        """Runs ``work``; if it fails, ``failed`` is told why.

        Raises:
            TooManyRequests: this owner has too many already.
        """
        running = sum(owner == key[0] for owner, _ in self._tasks)
        if self._most and running >= self._most:
            raise TooManyRequests(f"At most {self._most} responses in the background are allowed.")
        task = asyncio.create_task(self._run(work, failed))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def cancel(self, key: Key) -> bool:
        """Ends a response and waits until it has ended; whether it was running."""
        task = self._tasks.get(key)
        if task is None:
            return False
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return True

    async def close(self) -> None:
        """Ends all responses."""
        for key in list(self._tasks):
            await self.cancel(key)

    async def _run(
        self, work: Callable[[], Awaitable[None]], failed: Callable[[ApiError], Awaitable[None]]
    ) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await work()
        except TimeoutError:
            await failed(RequestTimeout(f"The response took longer than {self._seconds:g} seconds."))
        except ApiError as error:
            await failed(error)
        except Exception:
            log.exception("a response in the background failed")
            await failed(InternalError())

"""A thread for work that would block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
_POOL: Final = ThreadPoolExecutor(1, "large-bodies")
"""One thread. Threads share Python's global lock: two would not be faster, and the event loop would wait
twice as long for the lock. If a caller is cancelled, its work is still finished before the next begins."""
_POOL.submit(
    lambda: None
)  # starts the thread now: starting it waits for it, and its first work could hold the lock


async def in_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, executed in a thread; one at a time, in the order of the calls."""
    return await asyncio.get_running_loop().run_in_executor(_POOL, work)

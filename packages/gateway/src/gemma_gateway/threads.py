"""Work that would keep the event loop busy, in a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
_POOL: Final = ThreadPoolExecutor(1, "large-bodies")
"""One thread. Threads share Python's global lock: two would be no faster, and the event loop would wait twice
as long for its turn. A thread whose caller was cancelled finishes its work before it begins the next."""
_POOL.submit(lambda: None)  # to start a thread waits for it, and then its first work might hold the lock


async def in_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, done in a thread; works are done one at a time, in the order of their calls."""
    return await asyncio.get_running_loop().run_in_executor(_POOL, work)

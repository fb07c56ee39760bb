"""Threads with a bounded line before them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gemma_wire import Overloaded


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Lane:
    """Runs work in the order in which it comes.

    Args:
        name: of its threads.
        threads: how many work at once.
        limit: how much may wait or be worked on.
    """

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._limit = limit
        self.pending = 0
        """Work that has not ended."""

    def submit(self, work: Callable[[], None]) -> None:
        """Queue work that raises nothing.

        Raises:
            Overloaded: when too much waits already.
        """
        with self._lock:
            if self.pending >= self._limit:
                raise Overloaded(f"{self.pending} requests are waiting already; try again later")
            self.pending += 1
        self._pool.submit(self._run, work)

    def close(self) -> None:
        """Finish what was queued, and return when no thread is left."""
        self._pool.shutdown(wait=True)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self.pending -= 1

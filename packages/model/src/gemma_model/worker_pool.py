"""A thread pool with a bounded queue."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gemma_wire import Overloaded


class RequestAborted(Exception):
    """The request that a task works for was aborted: its client has disconnected."""


class WorkerPool:
    """Runs tasks in the order in which they are submitted.

    Args:
        name: prefix of the thread names.
        threads: maximum number of tasks that run at once.
        limit: maximum number of tasks that wait or run.
    """

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._limit = limit
        self.pending = 0
        """Tasks that wait or run."""

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task that raises nothing.

        Raises:
            Overloaded: ``limit`` tasks wait or run already.
        """
        with self._lock:
            if self.pending >= self._limit:
                raise Overloaded(f"{self.pending} requests are waiting already; try again later")
            self.pending += 1
        self._pool.submit(self._run, task)

    def close(self) -> None:
        """Finish the queued tasks, and return when no thread is left."""
        self._pool.shutdown(wait=True)

    def _run(self, task: Callable[[], None]) -> None:
        try:
            task()
        finally:
            with self._lock:
                self.pending -= 1

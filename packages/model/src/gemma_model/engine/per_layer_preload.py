"""Reads the file of the per-layer embedding table into the page cache while requests run."""

import logging
import os
import sys
import threading
import time

from gemma_model.engine.kv_cache_memory import GIB
from gemma_model.models.model import HostTable

log = logging.getLogger(__name__)
MAX_SHARE = 0.5
"""Maximum share of the free memory; reading a larger table would push out other files."""

LOWEST_PRIORITY = 19
"""The niceness of the thread, so that it does not slow down requests."""


class PerLayerPreloader:
    """A thread that reads the table.

    Args:
        table: memory-mapped.
        free: bytes of host memory; ``None`` if unknown: then rows are read when they are needed.
    """

    def __init__(self, table: HostTable, free: int | None) -> None:
        self._table, self._stop = table, threading.Event()
        self.thread: threading.Thread | None = None
        size = table.nbytes
        if free is None or size > free * MAX_SHARE:
            log.info(
                "per-layer table: rows of its %.2f GiB are read from the file when they are needed",
                size / GIB,
            )
            return
        self.thread = threading.Thread(target=self._read, name="per-layer-preload", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop, and return when the thread has ended."""
        self._stop.set()
        if self.thread is not None:
            self.thread.join()

    def _read(self) -> None:
        if sys.platform == "linux":  # where the priority is that of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        began = time.monotonic()
        if self._table.read_into_page_cache(self._stop.is_set):
            size, took = self._table.nbytes / GIB, time.monotonic() - began
            log.info("per-layer table: %.2f GiB are in the page cache after %.0f s", size, took)

"""Copies the per-layer embedding table from the memory-mapped file into memory while requests run."""

import logging
import os
import sys
import threading
import time

from gemma_model.engine.kv_cache_memory import GIB
from gemma_model.models.model import HostTable

log = logging.getLogger(__name__)
MAX_SHARE = 0.5
"""Maximum share of the free memory; pages of a mapped file can be dropped, a copy cannot."""

LOWEST_PRIORITY = 19
"""The niceness of the thread, so that it does not slow down requests."""


class PerLayerPreloader:
    """A thread that copies the table into memory.

    Args:
        table: memory-mapped.
        free: bytes of host memory; ``None`` if unknown: then the table stays in the file.
    """

    def __init__(self, table: HostTable, free: int | None) -> None:
        self._table, self._stop = table, threading.Event()
        self.thread: threading.Thread | None = None
        size = table.nbytes
        if free is None or size > free * MAX_SHARE:
            log.info("per-layer table: its %.2f GiB are read from the file", size / GIB)
            return
        self.thread = threading.Thread(target=self._copy, name="per-layer-preload", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop, and return when the thread has ended."""
        self._stop.set()
        if self.thread is not None:
            self.thread.join()

    def _copy(self) -> None:
        if sys.platform == "linux":  # where the priority is that of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        began = time.monotonic()
        if self._table.copy_into_memory(self._stop.is_set):
            size, took = self._table.nbytes / GIB, time.monotonic() - began
            log.info("per-layer table: %.2f GiB are in memory after %.0f s", size, took)
